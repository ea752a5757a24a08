//! What is looked at beside the GPUs, each in its own rhythm: whoever takes its time holds up nobody else.

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::gpu::{efa, module, pci};
use crate::host::systemd::Systemd;
use crate::host::{Deadline, Root};
use crate::phases::drivers::Services;

/// Asks systemd for the daemons beside the driver, as often as the GPUs are asked, while somebody wants
/// to know. What it does not say in time stays as it was.
pub(super) async fn services(root: Root, interval: Duration, services: watch::Sender<Services>) {
    let systemd = Systemd::new(root.clone());
    // A single GPU has no fabric: nothing hangs on them that could not wait.
    let rarely = interval * 12;
    while !services.is_closed() {
        if module::read(&root).version.is_some() {
            let said = Services::ask(&systemd, Deadline::within(interval)).await;
            services.send_modify(|known| {
                known.fabric_manager = said.fabric_manager.or(known.fabric_manager.take());
                known.persistenced = said.persistenced.or(known.persistenced.take());
            });
        }
        let has_many = pci::gpus(&root).is_some_and(|gpus| gpus.len() > 1);
        let wait = if has_many { interval } else { rarely };
        tokio::select! {
            () = sleep_until(Instant::now() + wait) => {}
            () = services.closed() => {}
        }
    }
}

/// Reads what the EFA devices count, as often. Each time in a thread that nobody waits for at the end: a
/// device that is ill keeps it for as long as it likes.
pub(super) async fn efa_errors(
    root: Root,
    interval: Duration,
    counted: watch::Sender<efa::Errors>,
) {
    while !counted.is_closed() {
        let (done, read) = oneshot::channel();
        let root = root.clone();
        let thread = std::thread::Builder::new().name("efa".into());
        let spawned = thread.spawn(move || done.send(efa::errors(&root)));
        if let Err(error) = spawned {
            tracing::warn!(%error, "EFA's counters cannot be read");
        } else if let Ok(errors) = read.await {
            counted.send_replace(errors);
        }
        tokio::select! {
            () = sleep_until(Instant::now() + interval) => {}
            () = counted.closed() => {}
        }
    }
}
