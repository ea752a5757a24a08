//! The `/proc`, `/sys`, `/dev` and `/opt` files that a kernel with the driver would show for a state.

mod driver;
mod pci;

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::state::{Process, Setup, State};

/// One simulated file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFile {
    /// Absolute path as on a real node.
    pub path: String,
    /// What it is.
    pub content: Content,
}

/// What a simulated file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Reading it gives these bytes.
    Bytes(Vec<u8>),
    /// A symbolic link.
    Link(String),
}

/// Directories that hold nothing but what the state says: the driver's, and those of devices.
const OWNED: [&str; 8] = [
    "/proc/driver/nvidia",
    "/sys/module/nvidia",
    "/sys/module/nvidia_uvm",
    "/sys/class/infiniband",
    IOMMU_GROUPS,
    // Before what its links lead to: they are ours when it is.
    PCI_DEVICES,
    DEVICES,
    RESOLVED,
];
const DEVICES: &str = "/sys/devices";
const PCI_DEVICES: &str = "/sys/bus/pci/devices";
const IOMMU_GROUPS: &str = "/sys/kernel/iommu_groups";
/// Where images that resolve their driver keep it.
const RESOLVED: &str = "/opt/nvidia";
/// Vendors of the functions that the state owns: NVIDIA, and Amazon for EFA.
const VENDORS: [&str; 2] = ["0x10de", "0x1d0f"];

/// Every file for this state.
#[must_use]
pub fn node_files(state: &State) -> Vec<NodeFile> {
    let mut files = pci::files(state);
    let mut modules = String::from("ena 180224 0 - Live 0x0000000000000000\n");
    if !state.efa.is_empty() {
        modules.push_str("efa 147456 0 - Live 0x0000000000000000\n");
    }
    if state.module_loaded {
        modules.push_str(
            "nvidia_uvm 4956160 0 - Live 0x0000000000000000\n\
             nvidia 104165376 1 nvidia_uvm, Live 0x0000000000000000\n",
        );
        files.extend(driver::files(state));
    }
    if state.setup == Setup::Resolve {
        files.extend(driver::trees(state));
    }
    files.push(text("/proc/modules", modules));
    for process in state.gpus.iter().flat_map(|gpu| &gpu.processes) {
        files.extend(process.state.map(|state| stat(process, state)));
    }
    files
}

/// What `/proc/<pid>/stat` says of a program: name, state, and when it was started.
fn stat(process: &Process, state: char) -> NodeFile {
    let Process { pid, name, .. } = process;
    let rest = "1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 7700 0 0";
    text(format!("/proc/{pid}/stat"), format!("{pid} ({name}) {state} {rest}\n"))
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
    for owned in OWNED {
        // A tree without our link in it is somebody else's.
        if owned != RESOLVED || below(root, RESOLVED).join("current").is_symlink() {
            remove_unlisted(root, owned, &files)?;
        }
    }
    remove_device_nodes(root, &files)?;
    for file in &files {
        write(&below(root, &file.path), &file.content)?;
    }
    Ok(())
}

/// Makes a file what it should be, unless it is so already.
fn write(path: &Path, content: &Content) -> io::Result<()> {
    let unchanged = match content {
        Content::Bytes(bytes) => fs::read(path).is_ok_and(|old| old == *bytes),
        Content::Link(target) => fs::read_link(path).is_ok_and(|old| old == Path::new(target)),
    };
    if unchanged {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let temporary = path.with_file_name(".nvml-sim.new");
    match content {
        Content::Bytes(bytes) => fs::write(&temporary, bytes)?,
        Content::Link(target) => symlink(target, &temporary)?,
    }
    fs::rename(&temporary, path)
}

fn text(path: impl Into<String>, contents: impl Into<String>) -> NodeFile {
    NodeFile { path: path.into(), content: Content::Bytes(contents.into().into_bytes()) }
}

fn link(path: impl Into<String>, target: impl Into<String>) -> NodeFile {
    NodeFile { path: path.into(), content: Content::Link(target.into()) }
}

fn below(root: &Path, absolute: &str) -> PathBuf {
    root.join(absolute.trim_start_matches('/'))
}

/// Removes what lies below `owned` and has no file of the list in or under it. What other vendors
/// have on the PCI bus stays, and so does what Amazon has there that is no EFA device.
fn remove_unlisted(root: &Path, owned: &str, files: &[NodeFile]) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(below(root, owned)) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let path = format!("{owned}/{}", entry.file_name().to_string_lossy());
        if owned == PCI_DEVICES && is_foreign(&entry.path()) {
            continue;
        }
        let listed = files.iter().any(|file| {
            file.path == path || file.path.strip_prefix(&path).is_some_and(|r| r.starts_with('/'))
        });
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
    let is_empty = !files.iter().any(|file| file.path.starts_with(owned));
    if is_empty && owned != PCI_DEVICES {
        fs::remove_dir_all(below(root, owned))?;
    }
    Ok(())
}

/// Whether a function on the bus is none that a state describes.
fn is_foreign(function: &Path) -> bool {
    let read = |name: &str| fs::read_to_string(function.join(name)).unwrap_or_default();
    let (vendor, device) = (read("vendor"), read("device"));
    let ours = VENDORS.contains(&vendor.trim());
    !ours || (vendor.trim() == VENDORS[1] && !device.starts_with("0xefa"))
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
mod tests;
