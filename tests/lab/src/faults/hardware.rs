//! Faults that lie in a node's own files: GPUs, driver, library, and the CNI daemon's hold.
//!
//! The files follow from the set of faults alone, so that lifting the last one leaves exactly what
//! was there before.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nvml_sim::{State, node_files};

use serde_json::Value;

use super::Fault;
use crate::directory::{ignore_missing, link_or_copy};
use crate::user_data::merge_patch;

/// Where the driver's library is on a node.
const LIBRARIES: &str = "usr/lib64";
/// The name that programs load, a link to the library of the driver's version.
const LIBRARY: &str = "libnvidia-ml.so.1";
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

    /// Whether there are GPUs to break.
    #[must_use]
    pub fn has_gpus(&self) -> bool {
        self.gpus.is_some()
    }

    /// Makes the node's files say what these faults make of its hardware.
    ///
    /// # Errors
    /// When a file cannot be changed.
    pub fn set(&self, faults: &[Fault]) -> io::Result<()> {
        if let Some(healthy) = &self.gpus {
            let mut state = healthy.clone();
            for fault in faults {
                match fault {
                    Fault::Driver(fault) => fault.apply(&mut state),
                    Fault::Hardware { gpu, patch } => state = patched(&state, *gpu, patch)?,
                    _ => {}
                }
            }
            node_files::sync(&self.root, &state)?;
            self.set_library(!faults.contains(&Fault::DriverLibraryMissing))?;
        }
        self.set_hold(faults.contains(&Fault::CniHeld))
    }

    fn set_library(&self, present: bool) -> io::Result<()> {
        let directory = self.root.join(LIBRARIES);
        let (link, file) = (directory.join(LIBRARY), directory.join(versioned()));
        match &self.library {
            _ if !present => {
                ignore_missing(fs::remove_file(link))?;
                ignore_missing(fs::remove_file(file))
            }
            Some(library) if !link.exists() => {
                link_or_copy(library, &file).map_err(io::Error::other)?;
                symlink(versioned(), link)
            }
            _ => Ok(()),
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

/// The library's own name.
fn versioned() -> String {
    format!("libnvidia-ml.so.{}", nvml_sim::profile::DRIVER_VERSION)
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
        fs::write(&library, "a library").unwrap();
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
