//! Faults that lie in a node's own files: GPUs, driver, library, and the CNI daemon's hold.
//!
//! The files follow from the set of faults alone, so that lifting the last one leaves exactly what
//! was there before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nvml_sim::fault::Happening;
use nvml_sim::kernel_log::{self, Priority};
use nvml_sim::{State, library, node_files};

use serde_json::Value;

use super::Fault;
use crate::directory::ignore_missing;
use crate::user_data::merge_patch;

/// While it exists, the kubelet stand-in's aws-node writes no CNI configuration.
const CNI_HOLD: &str = "var/lib/kubelet-standin/hold-cni";

/// A node's hardware when nothing is broken.
#[derive(Clone, Debug)]
pub struct Hardware {
    root: PathBuf,
    gpus: Option<State>,
    library: Option<PathBuf>,
}

impl Hardware {
    /// The hardware of an instance; `library` is the built `libnvml_sim.so`.
    #[must_use]
    pub fn of(root: &Path, instance_type: &str, instance_id: &str, library: Option<&Path>) -> Self {
        Self {
            root: root.to_owned(),
            gpus: nvml_sim::profile::for_instance(instance_type, instance_id),
            library: library.map(Path::to_owned),
        }
    }

    /// The same for a machine: its `/sys` is the kernel's, and has no place to show EFA or a tree in.
    #[must_use]
    pub fn of_machine(mut self) -> Self {
        if let Some(gpus) = &mut self.gpus {
            gpus.efa.clear();
            gpus.flat_pci = true;
        }
        self
    }

    /// Whether there are GPUs to break.
    #[must_use]
    pub fn has_gpus(&self) -> bool {
        self.gpus.is_some()
    }

    /// Makes the node's files say what these faults make of its hardware. What event sets were
    /// told stays told.
    ///
    /// # Errors
    /// When a file cannot be changed.
    pub fn set(&self, faults: &[Fault]) -> io::Result<()> {
        if let Some(healthy) = &self.gpus {
            let mut state = broken(healthy, faults)?;
            state.events = State::read(&self.root).map(|now| now.events).unwrap_or_default();
            node_files::sync(&self.root, &state)?;
            self.set_library(&state, faults)?;
        }
        self.set_hold(faults.contains(&Fault::CniHeld))
    }

    /// Begins a boot with the hardware as it is: the kernel's log starts anew and tells of the faults
    /// that are there still, and event sets are told nothing of before.
    ///
    /// # Errors
    /// When a file cannot be changed.
    pub fn boot(&self, faults: &[Fault]) -> io::Result<()> {
        let Some(healthy) = &self.gpus else { return Ok(()) };
        let mut state = State::read(&self.root).unwrap_or_else(|_| healthy.clone());
        state.events = Default::default();
        state.write(&self.root)?;
        ignore_missing(fs::remove_file(self.root.join(kernel_log::PATH.trim_start_matches('/'))))?;
        kernel_log::boot(&self.root, &state)?;
        for fault in faults {
            if broken(&state, std::slice::from_ref(fault))? == state {
                self.announce(fault)?;
            }
        }
        Ok(())
    }

    /// Has the kernel say what it says when this fault comes.
    ///
    /// # Errors
    /// When its log cannot be written.
    pub fn announce(&self, fault: &Fault) -> io::Result<()> {
        let (Some(healthy), Fault::Driver(fault)) = (&self.gpus, fault) else { return Ok(()) };
        let lines = fault.kernel_says(healthy);
        if lines.is_empty() {
            return Ok(());
        }
        kernel_log::append_all(&self.root, Priority::Error, &lines)
    }

    /// Lets something happen once.
    ///
    /// # Errors
    /// When the state or the kernel's log cannot be written.
    pub fn happen(&self, happening: &Happening) -> io::Result<()> {
        happening.happen(&self.root)
    }

    fn set_library(&self, state: &State, faults: &[Fault]) -> io::Result<()> {
        match &self.library {
            _ if faults.contains(&Fault::DriverLibraryMissing) => library::uninstall(&self.root),
            Some(built) => library::install(built, &self.root, state),
            None => Ok(()),
        }
    }

    fn set_hold(&self, held: bool) -> io::Result<()> {
        let path = self.root.join(CNI_HOLD);
        if held {
            let directory = path.parent().unwrap_or(&self.root);
            fs::create_dir_all(directory)?;
            fs::write(path, "held by lab fault\n")
        } else {
            ignore_missing(fs::remove_file(path))
        }
    }
}

/// What these faults make of healthy hardware.
fn broken(healthy: &State, faults: &[Fault]) -> io::Result<State> {
    let mut state = healthy.clone();
    for fault in faults {
        match fault {
            Fault::Driver(fault) => fault.apply(&mut state),
            Fault::Hardware { gpu, patch } => state = patched(&state, *gpu, patch)?,
            _ => {}
        }
    }
    Ok(state)
}

/// The state with a merge patch on one GPU, or on the driver as a whole.
fn patched(state: &State, gpu: Option<u32>, patch: &Value) -> io::Result<State> {
    let mut value = serde_json::to_value(state)?;
    let part = match gpu {
        Some(index) => value["gpus"]
            .as_array_mut()
            .and_then(|gpus| gpus.iter_mut().find(|gpu| gpu["index"] == index))
            .ok_or_else(|| io::Error::other(format!("there is no GPU {index}")))?,
        None => &mut value,
    };
    merge_patch(part, patch);
    Ok(serde_json::from_value(value)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut open = vec![root.to_owned()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let name = path.strip_prefix(root).unwrap().to_owned();
                    files.insert(name, fs::read(path).unwrap());
                }
            }
        }
        files
    }

    fn node() -> (tempfile::TempDir, Hardware) {
        let temporary = tempfile::tempdir().unwrap();
        let library = temporary.path().join("libnvml_sim.so");
        fs::write(&library, b"\0nvmlDeviceGetRemappedRows\0nvmlDeviceGetGpuFabricInfoV\0nvmlDeviceGetSramEccErrorStatus\0nvmlDeviceGetPlatformInfo\0nvmlDeviceGetTemperatureV\0").unwrap();
        let root = temporary.path().join("root");
        let hardware = Hardware::of(&root, "p5.48xlarge", "i-1", Some(&library));
        hardware.set(&[]).unwrap();
        (temporary, hardware)
    }

    #[test]
    fn each_fault_changes_the_node_and_lifting_it_restores_every_byte() {
        let (temporary, hardware) = node();
        let root = temporary.path().join("root");
        let healthy = tree(&root);
        let driver = |text: &str| text.parse::<Fault>().unwrap();
        for name in [
            "driver-library-mismatch",
            "driver-not-loaded",
            "driver-library-missing",
            "driver-hang",
            "gpu-missing",
            "gpu-missing=3",
            "gpu-lost=2",
            "cni-held",
            r#"gpu-set=1:{"fault":{"resetRequired":true}}"#,
            r#"driver-set={"faults":{"init":999}}"#,
            "gpu-off-bus=1",
            "driver-version=535.261.03",
            "symbol-missing=nvmlDeviceGetRemappedRows",
            "efa-missing",
            "row-remap-pending=0",
        ] {
            hardware.set(&[driver(name)]).unwrap();
            assert_ne!(tree(&root), healthy, "{name} changes nothing");
            hardware.set(&[]).unwrap();
            assert_eq!(tree(&root), healthy, "{name} leaves something behind");
        }
        hardware.set(&[driver("gpu-missing=1"), driver("cni-held"), driver("gpu-lost=0")]).unwrap();
        hardware.set(&[driver("gpu-lost=0")]).unwrap();
        assert!(root.join("dev/nvidia1").exists());
        hardware.set(&[]).unwrap();
        assert_eq!(tree(&root), healthy);
    }

    #[test]
    fn what_happens_stays_until_the_next_boot() {
        let (temporary, hardware) = node();
        let root = temporary.path().join("root");
        let log = || fs::read_to_string(root.join("dev/kmsg")).unwrap_or_default();
        hardware.boot(&[]).unwrap();
        assert!(log().contains("NVRM: loading NVIDIA UNIX Open Kernel Module"));
        hardware.happen(&"xid=79:2".parse().unwrap()).unwrap();
        hardware.set(&[]).unwrap();
        assert_eq!(State::read(&root).unwrap().events.len(), 1);
        assert!(log().contains("NVRM: Xid (PCI:0000:75:00): 79, "));

        let off: Fault = "gpu-off-bus=3".parse().unwrap();
        hardware.announce(&off).unwrap();
        assert!(log().contains("NVRM: GPU 0000:86:00.0: GPU has fallen off the bus."));
        hardware.boot(&[]).unwrap();
        assert!(!log().contains("Xid") && State::read(&root).unwrap().events.is_empty());
        hardware.boot(std::slice::from_ref(&off)).unwrap();
        assert!(!log().contains("Xid"), "the reboot has mended it");
        hardware.set(std::slice::from_ref(&off)).unwrap();
        hardware.boot(&[off]).unwrap();
        assert!(log().contains("Xid"), "what is still broken is said again");
    }

    #[test]
    fn a_missing_gpu_is_missing_at_every_layer() {
        let (temporary, hardware) = node();
        let root = temporary.path().join("root");
        let healthy = tree(&root);
        hardware.set(&["gpu-missing".parse().unwrap()]).unwrap();
        let broken = tree(&root);
        let gone: Vec<String> = healthy
            .keys()
            .filter(|path| !broken.contains_key(*path))
            .map(|path| path.display().to_string())
            .collect();
        for part in ["sys/bus/pci/devices/", "proc/driver/nvidia/gpus/", "dev/nvidia7"] {
            assert!(
                gone.iter().any(|path| path.starts_with(part)),
                "{part} is still there: {gone:?}"
            );
        }
        assert_eq!(State::read(&root).unwrap().gpus.len(), 7);
    }

    #[test]
    fn a_node_without_gpus_gets_nothing_of_nvidia() {
        let temporary = tempfile::tempdir().unwrap();
        let hardware = Hardware::of(temporary.path(), "m6i.large", "i-1", None);
        assert!(!hardware.has_gpus());
        hardware.set(&[]).unwrap();
        assert_eq!(tree(temporary.path()), BTreeMap::new());
    }
}
