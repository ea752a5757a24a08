//! Named faults as edits of a state. After one, write the node's files anew: [`crate::node_files()`].

use std::fmt;
use std::str::FromStr;

use crate::state::{GpuFault, State};

/// Version of the kernel module that a mismatch leaves loaded: an older one of the same branch.
const STALE_MODULE_VERSION: &str = "580.82.07";

/// A fault of a GPU or of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The loaded kernel module is older than the library.
    DriverLibraryMismatch,
    /// The kernel module is not loaded.
    DriverNotLoaded,
    /// No call comes back.
    DriverHang,
    /// A GPU is not on the bus; without a number the last one.
    GpuMissing(Option<u32>),
    /// A GPU has fallen off the bus while the driver ran.
    GpuLost(u32),
}

impl Fault {
    /// Lays the fault on a state.
    pub fn apply(self, state: &mut State) {
        match self {
            Self::DriverLibraryMismatch => {
                state.module_version = Some(STALE_MODULE_VERSION.into());
            }
            Self::DriverNotLoaded => state.module_loaded = false,
            Self::DriverHang => state.faults.hang = vec!["*".into()],
            Self::GpuMissing(index) => {
                let last = state.gpus.iter().map(|gpu| gpu.index).max();
                let missing = index.or(last);
                state.gpus.retain(|gpu| Some(gpu.index) != missing);
            }
            Self::GpuLost(index) => {
                if let Some(gpu) = state.gpu_mut(index) {
                    gpu.fault = Some(GpuFault { lost: true, ..GpuFault::default() });
                }
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DriverLibraryMismatch => f.write_str("driver-library-mismatch"),
            Self::DriverNotLoaded => f.write_str("driver-not-loaded"),
            Self::DriverHang => f.write_str("driver-hang"),
            Self::GpuMissing(None) => f.write_str("gpu-missing"),
            Self::GpuMissing(Some(index)) => write!(f, "gpu-missing={index}"),
            Self::GpuLost(index) => write!(f, "gpu-lost={index}"),
        }
    }
}

/// A name that is no fault of a GPU or of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFault(pub String);

impl fmt::Display for UnknownFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no fault of a GPU or of the driver", self.0)
    }
}

impl std::error::Error for UnknownFault {}

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let index = value.map(|value| value.parse().map_err(|_| UnknownFault(text.into())));
        match (name, index.transpose()?) {
            ("driver-library-mismatch", None) => Ok(Self::DriverLibraryMismatch),
            ("driver-not-loaded", None) => Ok(Self::DriverNotLoaded),
            ("driver-hang", None) => Ok(Self::DriverHang),
            ("gpu-missing", index) => Ok(Self::GpuMissing(index)),
            ("gpu-lost", Some(index)) => Ok(Self::GpuLost(index)),
            _ => Err(UnknownFault(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::for_instance_type;

    #[test]
    fn names_are_read_as_they_are_written() {
        for text in [
            "driver-library-mismatch",
            "driver-not-loaded",
            "driver-hang",
            "gpu-missing",
            "gpu-missing=3",
            "gpu-lost=0",
        ] {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
        for text in ["gpu-lost", "gpu-lost=x", "driver-hang=1", "cni-held"] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_missing_gpu_leaves_the_others_where_they_were() {
        let mut state = for_instance_type("p5.48xlarge").unwrap();
        let uuid = state.gpus[7].uuid.clone();
        Fault::GpuMissing(Some(3)).apply(&mut state);
        assert_eq!((state.gpus.len(), state.gpu(3)), (7, None));
        assert_eq!(state.gpu(7).unwrap().uuid, uuid);
        Fault::GpuMissing(None).apply(&mut state);
        assert_eq!(state.gpu(7), None);
    }
}
