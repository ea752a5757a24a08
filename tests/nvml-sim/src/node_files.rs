//! The `/proc`, `/sys` and `/dev` files that a kernel with the driver would show for a state.

use std::fs;
use std::io;
use std::path::Path;

use crate::state::{Gpu, State};

/// One simulated file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFile {
    /// Absolute path as on a real node.
    pub path: String,
    /// What reading it gives.
    pub contents: String,
}

/// What the driver makes, and so what goes when it is not loaded or a GPU is missing.
const DRIVER_OWNED: [&str; 3] =
    ["/proc/driver/nvidia", "/sys/module/nvidia", "/sys/module/nvidia_uvm"];

/// Every file for this state.
#[must_use]
pub fn node_files(state: &State) -> Vec<NodeFile> {
    let mut files: Vec<NodeFile> = state.gpus.iter().flat_map(pci_files).collect();
    let mut modules = String::from("ena 180224 0 - Live 0x0000000000000000\n");
    if state.module_loaded {
        modules.push_str(
            "nvidia_uvm 4956160 0 - Live 0x0000000000000000\n\
             nvidia 104165376 1 nvidia_uvm, Live 0x0000000000000000\n",
        );
        files.extend(driver_files(state));
    }
    files.push(file("/proc/modules", modules));
    files
}

/// Makes the files below `root` those of this state: writes them, and removes what a node in this
/// state does not have. The state file itself is written first, so that the library never sees
/// more GPUs than the files show.
///
/// # Errors
///
/// A file cannot be written or removed.
pub fn sync(root: &Path, state: &State) -> io::Result<()> {
    state.write(root)?;
    let files = node_files(state);
    for owned in DRIVER_OWNED {
        remove_unlisted(root, owned, &files)?;
    }
    remove_unlisted(root, "/sys/bus/pci/devices", &files)?;
    remove_device_nodes(root, &files)?;
    for file in &files {
        let path = below(root, &file.path);
        if fs::read(&path).is_ok_and(|old| old == file.contents.as_bytes()) {
            continue;
        }
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let temporary = path.with_file_name(".nvml-sim.new");
        fs::write(&temporary, &file.contents)?;
        fs::rename(&temporary, &path)?;
    }
    Ok(())
}

fn pci_files(gpu: &Gpu) -> Vec<NodeFile> {
    let device = |name: &str, contents: String| {
        file(format!("/sys/bus/pci/devices/{}/{name}", gpu.pci), format!("{contents}\n"))
    };
    vec![
        device("vendor", format!("0x{:04x}", gpu.pci_device_id & 0xffff)),
        device("device", format!("0x{:04x}", gpu.pci_device_id >> 16)),
        // 3D controller: a GPU without a display.
        device("class", "0x030200".into()),
        device("current_link_width", gpu.pcie.width.0.to_string()),
        device("max_link_width", gpu.pcie.width.1.to_string()),
        device("current_link_speed", link_speed(gpu.pcie.generation.0)),
        device("max_link_speed", link_speed(gpu.pcie.generation.1)),
    ]
}

fn link_speed(generation: u32) -> String {
    let gigatransfers = match generation {
        1 => "2.5",
        2 => "5.0",
        3 => "8.0",
        4 => "16.0",
        5 => "32.0",
        _ => "64.0",
    };
    format!("{gigatransfers} GT/s PCIe")
}

fn driver_files(state: &State) -> Vec<NodeFile> {
    let version = state.module_version();
    let mut files = vec![
        file(
            "/proc/driver/nvidia/version",
            format!(
                "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build  (root@builder)\n\
                 GCC version:  gcc version 11.5.0 20240719 (Red Hat 11.5.0-5) (GCC)\n"
            ),
        ),
        file("/sys/module/nvidia/version", format!("{version}\n")),
        file("/sys/module/nvidia_uvm/version", format!("{version}\n")),
        file("/dev/nvidiactl", String::new()),
        file("/dev/nvidia-uvm", String::new()),
    ];
    for gpu in &state.gpus {
        files.push(file(format!("/dev/nvidia{}", gpu.minor), String::new()));
        files.push(file(
            format!("/proc/driver/nvidia/gpus/{}/information", gpu.pci),
            format!(
                "Model: \t\t {}\nIRQ:   \t\t {}\nGPU UUID: \t {}\nVideo BIOS: \t 96.00.99.00.01\n\
                 Bus Type: \t PCIe\nBus Location: \t {}\nDevice Minor: \t {}\nGPU Excluded:\t No\n",
                gpu.name,
                160 + gpu.index,
                gpu.uuid,
                gpu.pci,
                gpu.minor
            ),
        ));
    }
    files
}

fn file(path: impl Into<String>, contents: impl Into<String>) -> NodeFile {
    NodeFile { path: path.into(), contents: contents.into() }
}

fn below(root: &Path, absolute: &str) -> std::path::PathBuf {
    root.join(absolute.trim_start_matches('/'))
}

/// Removes what lies below `owned` and has no file of the list in or under it. Other vendors'
/// functions on the PCI bus stay.
fn remove_unlisted(root: &Path, owned: &str, files: &[NodeFile]) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(below(root, owned)) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let path = format!("{owned}/{}", entry.file_name().to_string_lossy());
        let foreign = fs::read_to_string(entry.path().join("vendor"))
            .is_ok_and(|vendor| vendor.trim() != "0x10de");
        let listed = files.iter().any(|file| {
            file.path == path || file.path.strip_prefix(&path).is_some_and(|r| r.starts_with('/'))
        });
        if foreign {
            continue;
        }
        if entry.file_type()?.is_dir() {
            if listed {
                remove_unlisted(root, &path, files)?;
            } else {
                fs::remove_dir_all(entry.path())?;
            }
        } else if !listed {
            fs::remove_file(entry.path())?;
        }
    }
    if !files.iter().any(|file| file.path.starts_with(owned)) && owned != "/sys/bus/pci/devices" {
        fs::remove_dir_all(below(root, owned))?;
    }
    Ok(())
}

fn remove_device_nodes(root: &Path, files: &[NodeFile]) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(below(root, "/dev")) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let path = format!("/dev/{}", entry.file_name().to_string_lossy());
        if path.starts_with("/dev/nvidia") && !files.iter().any(|file| file.path == path) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;
    use crate::profile::for_instance_type;

    fn tree(root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![root.to_path_buf()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    found.push(format!("/{}", path.strip_prefix(root).unwrap().display()));
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn files_follow_the_state_both_ways() {
        let node = tempfile::tempdir().unwrap();
        let root = node.path();
        let whole = for_instance_type("p5.48xlarge").unwrap();
        sync(root, &whole).unwrap();
        let healthy = tree(root);
        assert!(healthy.contains(&"/dev/nvidia7".to_owned()));

        // Another vendor's function and device node are not ours to remove.
        fs::create_dir_all(root.join("sys/bus/pci/devices/0000:00:05.0")).unwrap();
        fs::write(root.join("sys/bus/pci/devices/0000:00:05.0/vendor"), "0x1d0f\n").unwrap();
        fs::write(root.join("dev/console"), "").unwrap();

        let mut short = whole.clone();
        Fault::GpuMissing(Some(6)).apply(&mut short);
        sync(root, &short).unwrap();
        let files = tree(root);
        assert!(!files.iter().any(|path| path.contains("b9:00.0") || path == "/dev/nvidia6"));
        assert!(files.contains(&"/dev/nvidia5".to_owned()));

        let mut unloaded = whole.clone();
        Fault::DriverNotLoaded.apply(&mut unloaded);
        sync(root, &unloaded).unwrap();
        let files = tree(root);
        assert!(!files.iter().any(|path| path.contains("driver") || path.contains("dev/nvidia")));
        assert!(!root.join("sys/module/nvidia").exists());
        assert!(!fs::read_to_string(root.join("proc/modules")).unwrap().contains("nvidia"));

        sync(root, &whole).unwrap();
        let files = tree(root);
        assert!(files.contains(&"/sys/bus/pci/devices/0000:00:05.0/vendor".to_owned()));
        assert!(files.contains(&"/dev/console".to_owned()));
        assert_eq!(files.len(), healthy.len() + 2);
    }

    #[test]
    fn a_mismatch_shows_the_stale_module_version() {
        let mut state = for_instance_type("g5.xlarge").unwrap();
        Fault::DriverLibraryMismatch.apply(&mut state);
        let files = node_files(&state);
        let version = |path: &str| &files.iter().find(|file| file.path == path).unwrap().contents;
        assert_eq!(version("/sys/module/nvidia/version"), "580.82.07\n");
        assert!(version("/proc/driver/nvidia/version").contains("  580.82.07  "));
    }
}
