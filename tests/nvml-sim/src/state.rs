//! What the state file says: the driver, its GPUs and the faults laid on them.
//!
//! Every field but the few that name a GPU has a default, so a test may write only what it is about.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where the state lies below a node's root.
pub const STATE_PATH: &str = "/var/lib/nvml-sim/state.json";

/// Everything that the simulated driver knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    /// Version of the library, and of the kernel module unless [`Self::module_version`] says otherwise.
    pub driver_version: String,
    /// Version of the kernel module when it is not the library's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module_version: Option<String>,
    /// Whether the kernel module is loaded; only [`crate::node_files()`] reads it.
    #[serde(default = "yes")]
    pub module_loaded: bool,
    /// CUDA version as NVML counts: 13000 is 13.0.
    pub cuda_version: i32,
    /// The GPUs, in NVML's order.
    pub gpus: Vec<Gpu>,
    /// Faults of the library as a whole.
    #[serde(default, skip_serializing_if = "Faults::is_none")]
    pub faults: Faults,
}

const fn yes() -> bool {
    true
}

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
    /// Persistence mode.
    #[serde(default = "yes")]
    pub persistence: bool,
    /// MIG mode, where it can be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig: Option<bool>,
    /// Bit mask of clock event reasons; 1 is idle.
    #[serde(default)]
    pub clock_event_reasons: u64,
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
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<GpuFault>,
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
}

/// What `nvmlDeviceGetGpuFabricInfoV` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fabric {
    /// 1 not started, 2 in progress, 3 completed.
    pub state: u8,
    /// NVML return code of the registration.
    pub status: u32,
    /// Clique within the cluster.
    pub clique_id: u32,
    /// Two-bit and four-bit health fields.
    pub health_mask: u32,
    /// 1 healthy, 2 unhealthy, 3 limited capacity.
    pub health_summary: u8,
}

/// What is wrong with one GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct GpuFault {
    /// It has fallen off the bus: every call on it gives `GPU_IS_LOST`.
    pub lost: bool,
    /// It wants a reset: every call on it gives `RESET_REQUIRED`.
    pub reset_required: bool,
    /// Every call on it gives this code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
}

/// Faults of the library as a whole. Calls are named as in `nvml.h`; `*` is every call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Faults {
    /// Return code of the initialisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<u32>,
    /// Calls that do not come back while this stands. `*` also holds the library's lock, as a stuck
    /// driver does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hang: Vec<String>,
    /// Time that every call takes.
    #[serde(skip_serializing_if = "is_zero")]
    pub delay_ms: u64,
    /// Return codes of single calls.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub codes: BTreeMap<String, u32>,
    /// Number that the device count gives, whatever there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Faults {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl State {
    /// The GPU with this ordinal.
    #[must_use]
    pub fn gpu(&self, index: u32) -> Option<&Gpu> {
        self.gpus.iter().find(|gpu| gpu.index == index)
    }

    /// The GPU with this ordinal, to change it.
    pub fn gpu_mut(&mut self, index: u32) -> Option<&mut Gpu> {
        self.gpus.iter_mut().find(|gpu| gpu.index == index)
    }

    /// Version of the kernel module.
    #[must_use]
    pub fn module_version(&self) -> &str {
        self.module_version.as_deref().unwrap_or(&self.driver_version)
    }

    /// Reads the state below a node's root.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or does not hold a state.
    pub fn read(root: &Path) -> io::Result<Self> {
        Self::read_file(&state_path(root))
    }

    /// Reads a state file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or does not hold a state.
    pub fn read_file(path: &Path) -> io::Result<Self> {
        serde_json::from_slice(&fs::read(path)?).map_err(io::Error::from)
    }

    /// Writes the state below a node's root so that readers see the old one or the new one.
    ///
    /// # Errors
    ///
    /// The directory or the file cannot be written.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        self.write_file(&state_path(root))
    }

    /// Writes a state file so that readers see the old one or the new one.
    ///
    /// # Errors
    ///
    /// The directory or the file cannot be written.
    pub fn write_file(&self, path: &Path) -> io::Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let temporary = path.with_extension(format!("json.{}", std::process::id()));
        let mut file = fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        drop(file);
        fs::rename(&temporary, path)
    }
}

fn state_path(root: &Path) -> PathBuf {
    root.join(STATE_PATH.trim_start_matches('/'))
}
