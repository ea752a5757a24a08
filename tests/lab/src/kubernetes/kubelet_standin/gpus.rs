//! The device plugin's eyes: what the node's NVML shows, through the library that the node has.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nvml_wrapper::Nvml;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

const LIBRARY: &str = "usr/lib64/libnvidia-ml.so.1";
/// A driver that has not answered by then hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// As what the device plugin offers GPUs that MIG divides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MigStrategy {
    /// As GPUs all the same.
    #[default]
    None,
    /// Each part as a GPU.
    Single,
    /// Parts by their profile, each a resource of its own.
    Mixed,
}

/// What the device plugin offers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Offer {
    /// Devices that the driver enumerates.
    pub(super) capacity: u32,
    /// Those of them that answer.
    pub(super) allocatable: u32,
    /// Those that answer and are divided.
    pub(super) divided: u32,
    /// Their parts, by profile.
    pub(super) parts: BTreeMap<String, u32>,
}

impl Offer {
    /// So many GPUs, none of them divided.
    pub(super) fn whole(capacity: u32, allocatable: u32) -> Self {
        Self { capacity, allocatable, ..Self::default() }
    }

    /// The same as this strategy has it.
    pub(super) fn by(self, strategy: MigStrategy) -> Self {
        let parts: u32 = self.parts.values().sum();
        let undivided = |count: u32| count - self.divided;
        match strategy {
            MigStrategy::None => Self::whole(self.capacity, self.allocatable),
            MigStrategy::Single => {
                Self::whole(undivided(self.capacity) + parts, undivided(self.allocatable) + parts)
            }
            MigStrategy::Mixed => {
                let (capacity, allocatable) =
                    (undivided(self.capacity), undivided(self.allocatable));
                Self { capacity, allocatable, ..self }
            }
        }
    }
}

/// Why the device plugin offers nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProbeError {
    /// NVML cannot be loaded or initialised.
    #[error("error creating NVML library: {0}")]
    Init(String),
    /// The driver hangs.
    #[error("NVML does not answer")]
    Hang,
}

/// Asks NVML again and again while the plugin runs. A probe that hangs is left to its thread, said, and
/// waited for: the library holds locks, and a second probe would only hang behind it.
pub(super) async fn watch(
    root: PathBuf,
    mut plugin_runs: watch::Receiver<bool>,
    offers: watch::Sender<Option<Result<Offer, ProbeError>>>,
    every: Duration,
) -> Infallible {
    let library = root.join(LIBRARY);
    while plugin_runs.wait_for(|runs| *runs).await.is_ok() {
        let library = library.clone();
        let mut asked = tokio::task::spawn_blocking(move || ask(&library));
        let answered = match tokio::time::timeout(ANSWER_WITHIN, &mut asked).await {
            Ok(answered) => answered,
            Err(_) => {
                offers.send_replace(Some(Err(ProbeError::Hang)));
                asked.await
            }
        };
        let offer = answered.unwrap_or_else(|panic| Err(ProbeError::Init(panic.to_string())));
        offers.send_replace(Some(offer));
        tokio::time::sleep(every).await;
    }
    // Nobody can start the plugin any more.
    std::future::pending().await
}

fn ask(library: &Path) -> Result<Offer, ProbeError> {
    let init = |error: nvml_wrapper::error::NvmlError| ProbeError::Init(error.to_string());
    let nvml = Nvml::builder().lib_path(library.as_os_str()).init().map_err(init)?;
    let capacity = nvml.device_count().map_err(init)?;
    let mut offer = Offer { capacity, ..Offer::default() };
    for index in 0..capacity {
        let Ok(device) = nvml.device_by_index(index) else { continue };
        if device.memory_info().is_err() {
            continue;
        }
        offer.allocatable += 1;
        if device.mig_mode().is_ok_and(|mode| mode.current == 1) {
            offer.divided += 1;
            let most = device.mig_device_count().unwrap_or_default();
            let parts = (0..most).filter_map(|part| device.mig_device_by_index(part).ok());
            for name in parts.filter_map(|part| part.name().ok()) {
                // `NVIDIA H100 80GB HBM3 MIG 1g.10gb`
                let profile = name.rsplit(' ').next().unwrap_or_default().to_owned();
                *offer.parts.entry(profile).or_default() += 1;
            }
        }
    }
    Ok(offer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divided_gpus_are_offered_as_the_strategy_says() {
        let parts = [("1g.10gb".to_owned(), 7), ("3g.40gb".to_owned(), 2)].into();
        let two_of_eight = Offer { divided: 2, parts, ..Offer::whole(8, 8) };
        let counts = |strategy| {
            let offer = two_of_eight.clone().by(strategy);
            (offer.capacity, offer.allocatable, offer.parts.len())
        };
        assert_eq!(counts(MigStrategy::None), (8, 8, 0));
        assert_eq!(counts(MigStrategy::Single), (15, 15, 0));
        assert_eq!(counts(MigStrategy::Mixed), (6, 6, 2));
    }

    #[test]
    fn without_a_library_nothing_is_offered_and_the_cause_is_said() {
        let root = tempfile::tempdir().unwrap();
        let error = ask(&root.path().join(LIBRARY)).unwrap_err();
        assert!(matches!(&error, ProbeError::Init(why) if why.contains("libloading")), "{error}");
    }
}
