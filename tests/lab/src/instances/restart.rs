//! A process node's reboot: everything that runs ends, `/run` is gone, and a boot with an id of its
//! own begins on the same disk.

use std::sync::Arc;
use std::time::Duration;

use contract::ErrorChain;

use super::image;
use super::node::{BootError, Node, Surroundings};
use crate::directory::ignore_missing;
use crate::driver_double;
use crate::faults::Fault;
use crate::processes;
use crate::systemctl_double::state::Store;

/// How long what runs may take to end.
const GRACE: Duration = Duration::from_secs(3);

impl Node {
    /// Reboots the node.
    pub(super) async fn restart(self: Arc<Self>, around: &Surroundings) {
        let id = &self.instance.instance_id;
        let tasks = std::mem::take(&mut self.live().tasks);
        for task in tasks {
            task.abort();
        }
        processes::end(&processes::of_node(&self.root), GRACE).await;
        // A keeper may have restarted something in between.
        processes::end(&processes::of_node(&self.root), GRACE).await;
        match self.boot_again(around) {
            Ok(()) => tracing::info!(instance = %id, "node runs again"),
            Err(error) => {
                tracing::warn!(instance = %id, error = %ErrorChain(&error), "not restarted");
            }
        }
    }

    /// Reboots the node when its own `systemctl reboot` has asked for it.
    pub(super) fn reboot_when_asked(self: &Arc<Self>, around: &Surroundings) {
        if Store::of(&self.root).take_reboot() {
            let (node, around) = (Arc::clone(self), around.clone());
            tokio::spawn(async move { node.restart(&around).await });
        }
    }

    fn boot_again(&self, around: &Surroundings) -> Result<(), BootError> {
        ignore_missing(std::fs::remove_dir_all(self.root.join("run")))?;
        image::new_boot(&self.root)?;
        driver_double::reboot(&self.root)?;
        self.begin_boot(around)?;
        let faults = self.live().faults.clone();
        self.hardware.boot(&faults)?;
        for fault in faults {
            if let Fault::Local(local) = fault
                && local.ends_with_boot()
            {
                local.lay(&self.root)?;
            }
        }
        self.end_cloud_init()?;
        self.start_services();
        Ok(())
    }
}
