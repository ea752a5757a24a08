//! What the state file says: the driver, its GPUs and the faults laid on them.
//!
//! Every field but the few that name a GPU has a default, so a test may write only what it is about.

mod faults;
mod gpu;
mod node;

pub use faults::{Faults, GpuFault, Slow};
pub use gpu::{
    Aer, Banks, Ecc, Fabric, Gpu, Gsp, MigDevice, Nvlink, NvlinkErrors, Pcie, Process,
    RemappedRows, RetiredPages, Sram, Usage, Utilization,
};
pub use node::{Efa, Event, EventKind, Flavor, Machine, Setup};

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
    /// Which of NVIDIA's two kernel modules it is.
    #[serde(default)]
    pub module_flavor: Flavor,
    /// The machine's architecture.
    #[serde(default)]
    pub machine: Machine,
    /// How the image brings the driver.
    #[serde(default)]
    pub setup: Setup,
    /// CUDA version as NVML counts: 13000 is 13.0.
    pub cuda_version: i32,
    /// The GPUs, in NVML's order.
    pub gpus: Vec<Gpu>,
    /// PCI addresses of the NVSwitches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nvswitches: Vec<String>,
    /// The EFA devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub efa: Vec<Efa>,
    /// Whether `/sys/bus/pci/devices` has directories instead of links into a tree: where the rest of
    /// `/sys` is the kernel's own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flat_pci: bool,
    /// What event sets are told, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// Functions that the library does not have; [`crate::library::install`] hides them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden_symbols: Vec<String>,
    /// Whether the image has NVML's library and not CUDA's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_cuda: bool,
    /// Faults of the library as a whole.
    #[serde(default, skip_serializing_if = "Faults::is_none")]
    pub faults: Faults,
}

const fn yes() -> bool {
    true
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

    /// Tells every event set that has registered for it.
    pub fn push_event(&mut self, gpu: u32, kind: EventKind, data: u64) {
        let number = self.events.last().map_or(1, |event| event.number + 1);
        self.events.push(Event { number, gpu, kind, data });
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
