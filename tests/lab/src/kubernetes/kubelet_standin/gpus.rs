//! The device plugin's eyes: what the node's NVML shows, through the library that the node has.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nvml_wrapper::Nvml;
use tokio::sync::watch;

const LIBRARY: &str = "usr/lib64/libnvidia-ml.so.1";
/// A driver that has not answered by then hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// What the device plugin offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Offer {
    /// Devices that the driver enumerates.
    pub(super) capacity: u32,
    /// Those of them that answer.
    pub(super) allocatable: u32,
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
    let answers =
        |index: u32| nvml.device_by_index(index).and_then(|device| device.memory_info()).is_ok();
    let allocatable = (0..capacity).filter(|index| answers(*index)).count();
    Ok(Offer { capacity, allocatable: u32::try_from(allocatable).unwrap_or(capacity) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_library_nothing_is_offered_and_the_cause_is_said() {
        let root = tempfile::tempdir().unwrap();
        let error = ask(&root.path().join(LIBRARY)).unwrap_err();
        assert!(matches!(&error, ProbeError::Init(why) if why.contains("libloading")), "{error}");
    }
}
