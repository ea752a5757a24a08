//! What the state file says of one GPU.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::GpuFault;

/// One GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gpu {
    /// Ordinal on a whole node; a GPU keeps it when another one goes missing.
    pub index: u32,
    /// `GPU-` and a UUID.
    pub uuid: String,
    /// Product name as NVML gives it.
    pub name: String,
    /// Board serial number.
    pub serial: String,
    /// PCI address with a four-digit domain: `0000:53:00.0`.
    pub pci: String,
    /// PCI device id in the upper, vendor id in the lower half: `0x2330_10de`.
    pub pci_device_id: u32,
    /// Number of the device node `/dev/nvidia<minor>`.
    pub minor: u32,
    /// NVML's number of the architecture: 9 is Hopper.
    pub architecture: u32,
    /// CUDA compute capability, major and minor.
    pub compute_capability: (i32, i32),
    /// Memory in MiB as NVML counts it.
    pub memory_mib: u64,
    /// Of it reserved by the driver.
    pub memory_reserved_mib: u64,
    /// Of it used by programs.
    #[serde(default)]
    pub memory_used_mib: u64,
    /// Core temperature.
    pub temperature_c: u32,
    /// Memory temperature, where a sensor exists (HBM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_temperature_c: Option<u32>,
    /// Power draw.
    pub power_mw: u32,
    /// Enforced power limit.
    pub power_limit_mw: u32,
    /// Energy used before the simulation began; grows by the power draw from there.
    #[serde(default)]
    pub energy_mj: u64,
    /// SM clock and its maximum.
    pub sm_clock_mhz: (u32, u32),
    /// Memory clock and its maximum.
    pub memory_clock_mhz: (u32, u32),
    /// How busy it is.
    #[serde(default)]
    pub utilization: Utilization,
    /// The link to the host.
    pub pcie: Pcie,
    /// Error-correcting memory, where it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecc: Option<Ecc>,
    /// Row remapping, Ampere and later with HBM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remapped_rows: Option<RemappedRows>,
    /// Retired pages, before Ampere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_pages: Option<RetiredPages>,
    /// Persistence mode.
    #[serde(default = "yes")]
    pub persistence: bool,
    /// The GPU system processor's firmware.
    #[serde(default)]
    pub gsp: Gsp,
    /// Programs that use it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<Process>,
    /// MIG mode, where it can be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig: Option<bool>,
    /// Its parts while MIG is on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mig_devices: Vec<MigDevice>,
    /// Bit mask of clock event reasons; 1 is idle.
    #[serde(default)]
    pub clock_event_reasons: u64,
    /// Nanoseconds that a policy held the clocks down, by its name in NVML: `power`, `thermal`,
    /// `syncBoost`, `boardLimit`, `lowUtilization`, `reliability`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub violations_ns: BTreeMap<String, u64>,
    /// What GPM measures, where it does not follow from the utilization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Field 230; none where the driver does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_action: Option<u32>,
    /// NVLink, where it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvlink: Option<Nvlink>,
    /// NVSwitch fabric, where it is part of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fabric: Option<Fabric>,
    /// Position on the board, where NVML tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module_id: Option<u32>,
    /// It does not answer on the bus: its configuration space reads as all ones. The kernel keeps
    /// what it read at boot (`vendor`, `device`, `class`).
    #[serde(default, skip_serializing_if = "no")]
    pub off_bus: bool,
    /// Return codes of single calls on it, by the calls' names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub call_codes: BTreeMap<String, u32>,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<GpuFault>,
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
const fn no(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Percentages of time in which units were busy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Utilization {
    /// Compute.
    pub gpu: u32,
    /// Memory interface.
    pub memory: u32,
    /// Video encoder.
    pub encoder: u32,
    /// Video decoder.
    pub decoder: u32,
}

/// The link to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pcie {
    /// Generation now and at most.
    pub generation: (u32, u32),
    /// Lanes now and at most.
    pub width: (u32, u32),
    /// Packets sent again.
    #[serde(default)]
    pub replays: u32,
    /// Errors that the kernel counted.
    #[serde(default, skip_serializing_if = "Aer::is_none")]
    pub aer: Aer,
}

/// Errors of the link that the kernel counted: PCIe advanced error reporting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Aer {
    /// Corrected: bad packets, replays.
    pub correctable: u32,
    /// Uncorrected, the link lives on.
    pub nonfatal: u32,
    /// Uncorrected, the link is lost.
    pub fatal: u32,
}

impl Aer {
    /// Whether nothing was counted.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Error-correcting memory: its mode and what it counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Ecc {
    /// Mode.
    pub enabled: bool,
    /// Corrected since the driver was loaded.
    pub volatile_corrected: u64,
    /// Uncorrected since the driver was loaded.
    pub volatile_uncorrected: u64,
    /// Corrected in the board's life.
    pub aggregate_corrected: u64,
    /// Uncorrected in the board's life.
    pub aggregate_uncorrected: u64,
    /// Mode after the next reset, when it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<bool>,
    /// Of the SRAM; the rest is DRAM's.
    pub sram: Sram,
}

/// Errors of the SRAM in the board's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Sram {
    /// Uncorrected.
    pub uncorrectable: u64,
    /// The driver says that there were too many: the board is to be replaced.
    pub threshold_exceeded: bool,
}

/// Pages of memory that are not used any more, before Ampere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RetiredPages {
    /// For repeated single bit errors.
    pub single_bit: u32,
    /// For a double bit error.
    pub double_bit: u32,
    /// A page waits for a reset to be retired.
    pub pending: bool,
}

/// Rows of memory that spare ones replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RemappedRows {
    /// After correctable errors.
    pub correctable: u32,
    /// After uncorrectable errors.
    pub uncorrectable: u32,
    /// A remapping waits for a reset.
    pub pending: bool,
    /// A remapping failed: spare rows are used up.
    pub failed: bool,
    /// How many spare rows the banks have; none: all of them have all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub banks: Option<Banks>,
}

/// Banks of memory by how many of their spare rows are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Banks {
    /// All.
    pub max: u32,
    /// Most.
    pub high: u32,
    /// Some.
    pub partial: u32,
    /// One.
    pub low: u32,
    /// None.
    pub none: u32,
}

/// NVLink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Nvlink {
    /// Number of links.
    pub links: u32,
    /// Bit mask of links that are down.
    #[serde(default)]
    pub down: u32,
    /// Data sent and received in KiB per second.
    #[serde(default)]
    pub kib_per_second: (u64, u64),
    /// Errors over all links.
    #[serde(default, skip_serializing_if = "NvlinkErrors::is_none")]
    pub errors: NvlinkErrors,
}

/// Errors of the NVLinks since the driver was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NvlinkErrors {
    /// Flow control digits with a bad checksum.
    pub crc_flit: u64,
    /// Data with a bad checksum.
    pub crc_data: u64,
    /// Packets sent again.
    pub replay: u64,
    /// Links trained anew.
    pub recovery: u64,
    /// Links that did not come up again; only the fifth generation counts them.
    #[serde(skip_serializing_if = "is_zero")]
    pub recovery_failed: u64,
}

impl NvlinkErrors {
    /// Whether nothing was counted.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The GPU system processor's firmware: off where an image turns it off, absent before Turing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Gsp {
    /// Whether the firmware runs.
    pub enabled: bool,
    /// Its version when it is not the driver's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// A program that uses a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Process {
    /// Its number; none need run on the machine.
    pub pid: u32,
    /// Its program.
    pub name: String,
    /// Memory of the GPU that it uses.
    pub memory_mib: u64,
    /// Whether it draws; else it computes.
    #[serde(default)]
    pub graphics: bool,
    /// Its state where it has files in `/proc`: `D` hangs in the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<char>,
    /// The MIG device that it uses, by position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig_device: Option<usize>,
}

/// A part of a GPU under MIG: one compute instance of one GPU instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MigDevice {
    /// GPU instance.
    pub gi_id: u32,
    /// Compute instance within it.
    pub ci_id: u32,
    /// `1g.10gb`.
    pub profile: String,
    /// `MIG-` and a UUID.
    pub uuid: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Multiprocessors.
    pub multiprocessors: u32,
}

/// What GPM measures, in percent of the possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Usage {
    /// Any engine.
    pub graphics: f64,
    /// SMs with at least one warp.
    pub sm: f64,
    /// Resident warps.
    pub sm_occupancy: f64,
    /// Tensor pipes.
    pub tensor: f64,
    /// Memory interface.
    pub dram: f64,
    /// FP64 pipes.
    pub fp64: f64,
    /// FP32 pipes.
    pub fp32: f64,
    /// FP16 pipes.
    pub fp16: f64,
}

/// What `nvmlDeviceGetGpuFabricInfoV` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fabric {
    /// 1 not started, 2 in progress, 3 completed.
    pub state: u8,
    /// NVML return code of the registration.
    pub status: u32,
    /// The cluster, 32 hexadecimal digits; all zeros outside a multi-node domain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster_uuid: String,
    /// Clique within the cluster.
    pub clique_id: u32,
    /// Two-bit and four-bit health fields.
    pub health_mask: u32,
    /// 1 healthy, 2 unhealthy, 3 limited capacity.
    pub health_summary: u8,
}
