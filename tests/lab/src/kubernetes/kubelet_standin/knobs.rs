//! How this node's kubelet stand-in behaves: timings and faults, re-read while it runs.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gpus::MigStrategy;

/// Where the timings are, under the node's root.
pub(super) const CONFIG: &str = "var/lib/kubelet-standin/config.json";
/// While this file exists, the VPC CNI's daemon does not come up.
pub(super) const HOLD_CNI: &str = "var/lib/kubelet-standin/hold-cni";

/// Timings of the stand-in; every field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Knobs {
    /// From the VPC CNI's daemon running to its configuration on disk.
    pub cni_delay_ms: u64,
    /// From a pod bound to the node to its containers running.
    pub pod_start_ms: u64,
    /// Between two heartbeats.
    pub heartbeat_ms: u64,
    /// The VPC CNI's daemon runs and never gets ready. `hold-cni` says the same.
    pub cni_held: bool,
    /// Neither status nor lease is written any more.
    pub status_held: bool,
    /// The device plugin's pod does not come up.
    pub device_plugin_held: bool,
    /// The device plugin offers at most so many GPUs.
    pub gpus_offered: Option<u32>,
    /// As what the device plugin offers GPUs that MIG divides.
    pub mig_strategy: MigStrategy,
    /// The DRA driver's double offers the GPUs too, from the registration on.
    pub gpus_also_by_dra: bool,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            cni_delay_ms: 800,
            pod_start_ms: 300,
            heartbeat_ms: 3000,
            cni_held: false,
            status_held: false,
            device_plugin_held: false,
            gpus_offered: None,
            mig_strategy: MigStrategy::None,
            gpus_also_by_dra: false,
        }
    }
}

impl Knobs {
    /// Reads the knobs; without a file they are the defaults.
    ///
    /// # Errors
    ///
    /// When the file is there and does not hold knobs.
    pub fn read(root: &Path) -> Result<Self, String> {
        let mut knobs = match std::fs::read(root.join(CONFIG)) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| error.to_string())?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(error) => return Err(error.to_string()),
        };
        knobs.cni_held |= root.join(HOLD_CNI).exists();
        Ok(knobs)
    }

    pub(super) const fn pod_start(&self) -> Duration {
        Duration::from_millis(self.pod_start_ms)
    }

    pub(super) const fn cni_delay(&self) -> Duration {
        Duration::from_millis(self.cni_delay_ms)
    }

    pub(super) const fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knobs_have_defaults_are_read_and_refuse_what_they_do_not_know() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Knobs::read(root.path()), Ok(Knobs::default()));
        let dir = root.path().join("var/lib/kubelet-standin");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("config.json"), r#"{"cniDelayMs": 5}"#).unwrap();
        std::fs::write(dir.join("hold-cni"), "").unwrap();
        let knobs = Knobs::read(root.path()).unwrap();
        assert_eq!((knobs.cni_delay_ms, knobs.pod_start_ms, knobs.cni_held), (5, 300, true));
        std::fs::write(dir.join("config.json"), r#"{"cniDelay": 5}"#).unwrap();
        assert!(Knobs::read(root.path()).is_err());
    }
}
