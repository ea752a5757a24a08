//! Named faults as edits of a state. After one, write the node's files anew: [`crate::node_files::sync`].
//!
//! [`Trouble`] is what can be wrong with one GPU, [`Happening`] what happens once and is then
//! history: lines of the kernel's log, events.

mod gpu;
mod happening;

use std::fmt;
use std::str::FromStr;

pub use gpu::{Trouble, Which};
pub use happening::Happening;

use crate::kernel_log;
use crate::library;
use crate::state::{GpuFault, State};

/// Version of the kernel module that a mismatch leaves loaded: an older one of the same branch.
const STALE_MODULE_VERSION: &str = "580.82.07";

/// A fault of a GPU or of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The loaded kernel module is older than the library.
    DriverLibraryMismatch,
    /// The kernel module is not loaded.
    DriverNotLoaded,
    /// No call comes back.
    DriverHang,
    /// The whole driver is of this version.
    DriverVersion(String),
    /// Initialising gives this code.
    Init(u32),
    /// This call does not come back.
    Hang(String),
    /// Every call takes this many milliseconds.
    SlowCalls(u64),
    /// This call takes this many milliseconds.
    SlowCall(String, u64),
    /// This call gives this code.
    CallFails(String, u32),
    /// The library does not have this function.
    SymbolMissing(String),
    /// The library counts this many GPUs.
    Count(u32),
    /// The image has no library for CUDA.
    CudaMissing,
    /// A GPU is not on the bus; without a number the last one.
    GpuMissing(Option<u32>),
    /// A GPU has fallen off the bus while the driver ran.
    GpuLost(u32),
    /// One GPU, or each of them, has this.
    Gpu(Which, Trouble),
    /// An EFA device is not there; without a name the last one.
    EfaMissing(Option<String>),
    /// An EFA device's port is down.
    EfaDown(String),
    /// The EFA devices are away from the GPUs: no IOMMU group, no common root port.
    EfaApart,
    /// A counter of an EFA device has gone up by a thousand.
    EfaErrors(String, String),
}

impl Fault {
    /// Lays the fault on a state.
    pub fn apply(&self, state: &mut State) {
        match self {
            Self::DriverLibraryMismatch => {
                state.module_version = Some(STALE_MODULE_VERSION.into());
            }
            Self::DriverNotLoaded => state.module_loaded = false,
            Self::DriverHang => state.faults.hang = vec!["*".into()],
            Self::DriverVersion(version) => {
                state.hidden_symbols.extend(library::absent_in(version));
                if !library::knows_recovery_action(version) {
                    state.gpus.iter_mut().for_each(|gpu| gpu.recovery_action = None);
                }
                state.cuda_version = library::cuda_of(version);
                version.clone_into(&mut state.driver_version);
            }
            Self::Init(code) => state.faults.init = Some(*code),
            Self::Hang(call) => state.faults.hang.push(call.clone()),
            Self::SlowCalls(ms) => state.faults.delay_ms = *ms,
            Self::SlowCall(call, ms) => {
                state.faults.delays.insert(call.clone(), *ms);
            }
            Self::CallFails(call, code) => {
                state.faults.codes.insert(call.clone(), *code);
            }
            Self::SymbolMissing(call) => state.hidden_symbols.push(call.clone()),
            Self::Count(count) => state.faults.count = Some(*count),
            Self::CudaMissing => state.without_cuda = true,
            Self::GpuMissing(index) => {
                let last = state.gpus.iter().map(|gpu| gpu.index).max();
                let missing = index.or(last);
                state.gpus.retain(|gpu| Some(gpu.index) != missing);
            }
            Self::GpuLost(index) => {
                if let Some(gpu) = state.gpu_mut(*index) {
                    gpu.fault = Some(GpuFault { lost: true, ..GpuFault::default() });
                }
            }
            Self::Gpu(which, trouble) => {
                for gpu in state.gpus.iter_mut().filter(|gpu| which.has(gpu.index)) {
                    trouble.apply(gpu);
                }
            }
            Self::EfaMissing(name) => {
                let last = state.efa.last().map(|efa| efa.name.clone());
                let missing = name.clone().or(last);
                state.efa.retain(|efa| Some(&efa.name) != missing.as_ref());
            }
            Self::EfaErrors(name, counter) => {
                for efa in state.efa.iter_mut().filter(|efa| efa.name == *name) {
                    *efa.counters.entry(counter.clone()).or_default() += 1000;
                }
            }
            Self::EfaDown(name) => {
                for efa in state.efa.iter_mut().filter(|efa| efa.name == *name) {
                    efa.up = false;
                }
            }
            Self::EfaApart => state.efa.iter_mut().for_each(|efa| efa.apart = true),
        }
    }

    /// What the kernel says when the fault comes.
    #[must_use]
    pub fn kernel_says(&self, state: &State) -> Vec<String> {
        let Self::Gpu(which, Trouble::OffBus) = self else { return Vec::new() };
        let gone = state.gpus.iter().filter(|gpu| which.has(gpu.index));
        gone.flat_map(kernel_log::off_bus).collect()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DriverLibraryMismatch => f.write_str("driver-library-mismatch"),
            Self::DriverNotLoaded => f.write_str("driver-not-loaded"),
            Self::DriverHang => f.write_str("driver-hang"),
            Self::DriverVersion(version) => write!(f, "driver-version={version}"),
            Self::Init(code) => write!(f, "init={code}"),
            Self::Hang(call) => write!(f, "hang={call}"),
            Self::SlowCalls(ms) => write!(f, "slow-calls={ms}"),
            Self::SlowCall(call, ms) => write!(f, "slow-call={call}:{ms}"),
            Self::CallFails(call, code) => write!(f, "call-fails={call}:{code}"),
            Self::SymbolMissing(call) => write!(f, "symbol-missing={call}"),
            Self::Count(count) => write!(f, "gpu-count={count}"),
            Self::CudaMissing => f.write_str("cuda-missing"),
            Self::GpuMissing(None) => f.write_str("gpu-missing"),
            Self::GpuMissing(Some(index)) => write!(f, "gpu-missing={index}"),
            Self::GpuLost(index) => write!(f, "gpu-lost={index}"),
            Self::Gpu(which, trouble) => {
                write!(f, "{}={which}", trouble.name())?;
                trouble.value().map_or(Ok(()), |value| write!(f, ":{value}"))
            }
            Self::EfaMissing(None) => f.write_str("efa-missing"),
            Self::EfaMissing(Some(name)) => write!(f, "efa-missing={name}"),
            Self::EfaDown(name) => write!(f, "efa-down={name}"),
            Self::EfaApart => f.write_str("efa-apart"),
            Self::EfaErrors(name, counter) => write!(f, "efa-errors={name}:{counter}"),
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
        let (name, value) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v)));
        parse(name, value).ok_or_else(|| UnknownFault(text.into()))
    }
}

fn parse(name: &str, value: Option<&str>) -> Option<Fault> {
    let number = |text: &str| text.parse().ok();
    let Some(value) = value else {
        return match name {
            "driver-library-mismatch" => Some(Fault::DriverLibraryMismatch),
            "driver-not-loaded" => Some(Fault::DriverNotLoaded),
            "driver-hang" => Some(Fault::DriverHang),
            "cuda-missing" => Some(Fault::CudaMissing),
            "gpu-missing" => Some(Fault::GpuMissing(None)),
            "efa-missing" => Some(Fault::EfaMissing(None)),
            "efa-apart" => Some(Fault::EfaApart),
            _ => None,
        };
    };
    let call =
        |text: &str| ["nvml", "cu"].iter().any(|of| text.starts_with(of)).then(|| text.to_owned());
    let (call_of_pair, of_pair) =
        value.split_once(':').map_or((None, None), |(c, v)| (call(c), number(v)));
    match name {
        "driver-version" => Some(Fault::DriverVersion(value.to_owned())),
        "init" => Some(Fault::Init(number(value)?)),
        "hang" => Some(Fault::Hang(call(value)?)),
        "slow-calls" => Some(Fault::SlowCalls(value.parse().ok()?)),
        "slow-call" => Some(Fault::SlowCall(call_of_pair?, of_pair?.into())),
        "call-fails" => Some(Fault::CallFails(call_of_pair?, of_pair?)),
        "symbol-missing" => Some(Fault::SymbolMissing(call(value)?)),
        "gpu-count" => Some(Fault::Count(number(value)?)),
        "gpu-missing" => Some(Fault::GpuMissing(Some(number(value)?))),
        "gpu-lost" => Some(Fault::GpuLost(number(value)?)),
        "efa-missing" => Some(Fault::EfaMissing(Some(value.to_owned()))),
        "efa-down" => Some(Fault::EfaDown(value.to_owned())),
        "efa-errors" => {
            let (name, counter) = value.split_once(':')?;
            Some(Fault::EfaErrors(name.to_owned(), counter.to_owned()))
        }
        _ => {
            let (which, rest) =
                value.split_once(':').map_or((value, None), |(which, rest)| (which, Some(rest)));
            Some(Fault::Gpu(which.parse().ok()?, Trouble::parse(name, rest)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::for_instance_type;

    const NAMES: [&str; 48] = [
        "driver-library-mismatch",
        "driver-not-loaded",
        "driver-hang",
        "driver-version=535.261.03",
        "init=999",
        "hang=nvmlDeviceGetTemperature",
        "slow-calls=20",
        "slow-call=nvmlDeviceGetName:20",
        "call-fails=nvmlDeviceGetPowerUsage:3",
        "symbol-missing=nvmlDeviceGetGpuFabricInfoV",
        "gpu-count=7",
        "cuda-missing",
        "gpu-missing",
        "gpu-missing=3",
        "gpu-lost=0",
        "gpu-off-bus=2",
        "gpu-reset-required=1",
        "gpu-hang=1",
        "garbage=all",
        "wrong-bytes=6",
        "hang=cuInit",
        "row-remap-pending=0",
        "row-remap-failed=0",
        "row-remap-exhausted=0",
        "retired-pages-pending=0",
        "ecc-uncorrectable=5",
        "ecc-off=0",
        "sram-threshold=0",
        "recovery-action=4:2",
        "persistence-off=all",
        "throttle=0:hw-slowdown",
        "pcie-width=0:8",
        "pcie-generation=0:1",
        "aer=0:fatal",
        "nvlink-down=3:17",
        "nvlink-errors=3",
        "fabric-state=all:not-started",
        "fabric-error=0:15",
        "fabric-health=0:route-unhealthy",
        "mig-on=0",
        "mig-layout=0:1g.10gb,3g.40gb",
        "efa-missing=rdmap79s0",
        "efa-down=rdmap79s0",
        "efa-apart",
        "efa-errors=rdmap79s0:rx_drops",
        "gpu-hot=0",
        "stuck-process=0:4242",
        "nvlink-recovery-failed=0",
    ];

    #[test]
    fn names_are_read_as_they_are_written_and_each_changes_something() {
        let healthy = for_instance_type("p5.48xlarge").unwrap();
        let old = for_instance_type("g4dn.xlarge").unwrap();
        for text in NAMES {
            let fault: Fault = text.parse().unwrap();
            assert_eq!(fault.to_string(), text);
            let of = if text.starts_with("retired") { &old } else { &healthy };
            let mut state = of.clone();
            fault.apply(&mut state);
            assert_ne!(state, *of, "{text} changes nothing");
        }
        for text in [
            "gpu-lost",
            "gpu-lost=x",
            "driver-hang=1",
            "cni-held",
            "recovery-action=0",
            "recovery-action=0:9",
            "throttle=0:wind",
            "ecc-off=0:1",
            "slow-call=nvmlX",
            "hang=x",
            "mig-layout=0:9g.1tb",
        ] {
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
