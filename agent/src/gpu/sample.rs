//! What the helper process says, one JSON line each: plain data, no driver.
//!
//! A round is `opened`, a line per GPU as soon as it has answered, and `end`. So a driver that
//! hangs at the third GPU has already told of the first two, and the last `asking` line names the
//! call that did not come back.

use serde::{Deserialize, Serialize};

/// One line of the helper's output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Line {
    /// The helper is about to do this, and may not come back from it.
    Asking {
        /// What: `nvmlInit`, `GPU 3`.
        what: String,
    },
    /// The library is loaded and initialised.
    Opened(Driver),
    /// A GPU has answered, or has said why it does not.
    Gpu(Box<GpuSample>),
    /// The round is complete.
    End,
    /// There is no round: the driver cannot be asked.
    Failed(Failure),
    /// Between two rounds: whether NVML tells of XIDs at all.
    Listening {
        /// Whether it does.
        to_events: bool,
    },
    /// Between two rounds: NVML tells of an XID.
    Xid {
        /// PCI address of the GPU.
        pci: String,
        /// The code.
        code: u32,
    },
}

/// What the library says of itself and the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Driver {
    /// The library's file.
    pub library: String,
    /// Driver version, as NVML says.
    pub version: String,
    /// CUDA version that it supports, `13.0`; empty when it does not say.
    #[serde(default)]
    pub cuda: String,
    /// Number of GPUs that NVML counts.
    pub count: u32,
}

/// Why the driver cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Failure {
    /// There is no library where libraries are.
    LibraryMissing {
        /// The places that were searched.
        searched: Vec<String>,
    },
    /// The library is there and cannot be loaded.
    LibraryUnloadable {
        /// The library's file.
        library: String,
        /// What the loader said.
        error: String,
    },
    /// The library does not initialise.
    Init {
        /// The library's file.
        library: String,
        /// What NVML said.
        error: CallError,
    },
}

/// A call that NVML answered with an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallError {
    /// The call as nvml.h names it.
    pub call: String,
    /// NVML's return code; 999 also where the answer could not be understood.
    pub code: u32,
    /// What it means.
    pub text: String,
}

impl CallError {
    /// `NVML_ERROR_NO_PERMISSION`.
    pub const NO_PERMISSION: u32 = 4;
    /// `NVML_ERROR_DRIVER_NOT_LOADED`.
    pub const DRIVER_NOT_LOADED: u32 = 9;
    /// `NVML_ERROR_GPU_IS_LOST`.
    pub const GPU_IS_LOST: u32 = 15;
    /// `NVML_ERROR_RESET_REQUIRED`.
    pub const RESET_REQUIRED: u32 = 16;
    /// `NVML_ERROR_LIB_RM_VERSION_MISMATCH`.
    pub const VERSION_MISMATCH: u32 = 18;
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} gave {} ({})", self.call, self.code, self.text)
    }
}

/// One GPU at one moment. A value that the device does not have, or could not give, is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GpuSample {
    /// NVML index.
    pub index: u32,
    /// `GPU-…`; empty when the GPU does not answer.
    pub uuid: String,
    /// PCI address, `0000:53:00.0`; empty when the GPU does not answer.
    pub pci: String,
    /// Product name.
    pub name: String,
    /// Board serial number.
    pub serial: String,
    /// Number of its device node.
    pub minor: Option<u32>,
    /// The first call that failed for a cause that is not a missing feature.
    pub error: Option<CallError>,
    /// Readings.
    pub readings: Readings,
}

/// What a GPU measures, in NVML's units.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Readings {
    /// SM clock, MHz.
    pub sm_clock: Option<u32>,
    /// Memory clock, MHz.
    pub memory_clock: Option<u32>,
    /// Core temperature, °C.
    pub temperature: Option<u32>,
    /// Memory temperature, °C.
    pub memory_temperature: Option<u64>,
    /// Power draw, mW.
    pub power: Option<u32>,
    /// Energy since the driver was loaded, mJ.
    pub energy: Option<u64>,
    /// PCIe packets sent again.
    pub pcie_replays: Option<u32>,
    /// PCIe generation now.
    pub pcie_generation: Option<u32>,
    /// PCIe lanes now.
    pub pcie_width: Option<u32>,
    /// PCIe lanes at most.
    pub pcie_width_max: Option<u32>,
    /// Percentage of time in which a kernel ran.
    pub gpu_utilization: Option<u32>,
    /// Percentage of time in which memory was read or written.
    pub memory_utilization: Option<u32>,
    /// Percentage of time in which the encoder ran.
    pub encoder_utilization: Option<u32>,
    /// Percentage of time in which the decoder ran.
    pub decoder_utilization: Option<u32>,
    /// Memory in bytes.
    pub memory: Option<Memory>,
    /// Data over all NVLinks since the driver was loaded, KiB sent and received.
    pub nvlink_kib: Option<(u64, u64)>,
    /// Remapped rows.
    pub remapped_rows: Option<RemappedRows>,
    /// How many spares the banks of memory have left.
    pub remapper_banks: Option<RemapperBanks>,
    /// Whether a page waits for a reset to be retired, before Ampere.
    pub retired_pages_pending: Option<bool>,
    /// Whether the memory's errors are corrected.
    pub ecc_mode: Option<bool>,
    /// Errors of the memory; absent where it does not correct any.
    pub ecc: Option<Ecc>,
    /// Whether the driver says that the SRAM has had too many errors in the board's life.
    pub sram_exceeded: Option<bool>,
    /// Mask of what holds the clocks down.
    pub clock_event_reasons: Option<u64>,
    /// Degrees that are left until hardware holds the clocks down for heat; below zero beyond that.
    pub slowdown_margin: Option<i64>,
    /// The programs that use it, by their numbers on the host.
    pub processes: Vec<u32>,
    /// What the driver asks for, field 230: 0 nothing, 1 reset, 2 reboot, 3 and 4 drain.
    pub recovery_action: Option<u64>,
    /// Persistence mode.
    pub persistence: Option<bool>,
    /// MIG mode.
    pub mig: Option<bool>,
    /// MIG devices, where the mode is on.
    pub mig_devices: Option<u32>,
    /// Whether the GPU's own processor runs the driver's firmware.
    pub gsp: Option<bool>,
    /// NVLinks, where it has some.
    pub nvlinks: Option<Nvlinks>,
    /// Errors of all its NVLinks.
    pub nvlink_errors: Option<NvlinkErrors>,
    /// Place in the NVSwitch fabric.
    pub fabric: Option<Fabric>,
    /// Activity between this sample and the one before, on Hopper and later.
    pub activity: Option<Activity>,
}

impl GpuSample {
    /// The MIG devices that it is divided into; none where it is whole.
    #[must_use]
    pub fn parts(&self) -> Option<u32> {
        (self.readings.mig == Some(true)).then(|| self.readings.mig_devices.unwrap_or_default())
    }
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// Free.
    pub free: u64,
    /// Used by programs.
    pub used: u64,
    /// Kept by the driver.
    pub reserved: u64,
}

/// Rows of memory that spare ones replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemappedRows {
    /// For correctable errors.
    pub correctable: u32,
    /// For uncorrectable errors.
    pub uncorrectable: u32,
    /// A remapping waits for a reset.
    pub pending: bool,
    /// A remapping failed.
    pub failed: bool,
}

/// Banks of memory by the spare rows that they have left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemapperBanks {
    /// All of their own.
    pub max: u32,
    /// Most.
    pub high: u32,
    /// Some.
    pub partial: u32,
    /// Few.
    pub low: u32,
    /// None.
    pub none: u32,
}

/// NVLinks of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nvlinks {
    /// How many are up.
    pub up: usize,
    /// The numbers of those that are down.
    pub down: Vec<u32>,
}

/// Errors of a GPU's NVLinks since the driver was loaded; absent what its generation does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NvlinkErrors {
    /// Flow control digits with a bad checksum, or packets that could not be received.
    pub crc_flit: Option<u64>,
    /// Data with a bad checksum.
    pub crc_data: Option<u64>,
    /// Packets sent again.
    pub replays: Option<u64>,
    /// Links trained anew.
    pub recoveries: Option<u64>,
    /// Links that did not come up again.
    pub failed_recoveries: Option<u64>,
}

/// Memory errors since the driver was loaded and in the board's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ecc {
    /// Corrected, since the driver was loaded.
    pub volatile_corrected: Option<u64>,
    /// Uncorrected, since the driver was loaded.
    pub volatile_uncorrected: Option<u64>,
    /// Corrected, in the board's life.
    pub aggregate_corrected: Option<u64>,
    /// Uncorrected, in the board's life.
    pub aggregate_uncorrected: Option<u64>,
}

/// Place in the NVSwitch fabric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fabric {
    /// 1 not started, 2 in progress, 3 completed.
    pub state: u32,
    /// How the registration ended; none is success.
    pub error: Option<String>,
    /// Health fields.
    pub health_mask: u32,
}

/// Activity through GPM: ratios from 0 to 1, and bytes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Activity {
    /// Any engine.
    pub graphics: Option<f64>,
    /// SMs with at least one warp.
    pub sm: Option<f64>,
    /// Resident warps of the possible.
    pub sm_occupancy: Option<f64>,
    /// Tensor pipes.
    pub tensor: Option<f64>,
    /// Memory interface.
    pub dram: Option<f64>,
    /// FP64 pipes.
    pub fp64: Option<f64>,
    /// FP32 pipes.
    pub fp32: Option<f64>,
    /// FP16 pipes.
    pub fp16: Option<f64>,
    /// Bytes per second to the host.
    pub pcie_sent: Option<f64>,
    /// Bytes per second from the host.
    pub pcie_received: Option<f64>,
    /// Bytes per second over NVLink, sent.
    pub nvlink_sent: Option<f64>,
    /// Bytes per second over NVLink, received.
    pub nvlink_received: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_survive_the_pipe() {
        let lost = CallError {
            call: "nvmlDeviceGetHandleByIndex_v2".into(),
            code: 15,
            text: "lost".into(),
        };
        for line in [
            Line::Asking { what: "nvmlInit".into() },
            Line::Opened(Driver { count: 8, ..Driver::default() }),
            Line::Gpu(Box::new(GpuSample {
                index: 3,
                error: Some(lost.clone()),
                ..Default::default()
            })),
            Line::End,
            Line::Listening { to_events: true },
            Line::Xid { pci: "0000:53:00.0".into(), code: 48 },
            Line::Failed(Failure::LibraryMissing { searched: vec!["/usr/lib64".into()] }),
            Line::Failed(Failure::Init { library: "/usr/lib64/x".into(), error: lost }),
        ] {
            let json = serde_json::to_string(&line).unwrap();
            assert!(!json.contains('\n'));
            assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line);
        }
    }
}
