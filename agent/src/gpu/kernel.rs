//! For which kernels the image has the NVIDIA module, from its files.

use std::path::Path;

use crate::host::{Root, files};

/// The kernel that runs.
const RELEASE: &str = "/proc/sys/kernel/osrelease";

/// Trees of modules by kernel: the system's own, and those of EKS's images since September 2026.
const TREES: [&str; 5] = [
    "/lib/modules",
    "/usr/lib/modules",
    "/opt/nvidia/current/lib/modules",
    "/opt/nvidia/lts/lib/modules",
    "/opt/nvidia/pb/lib/modules",
];

/// Where in a kernel's tree a module that is not the kernel's own lies.
const PLACES: [&str; 5] = ["extra", "updates", "weak-updates", "kernel/drivers/video", "nvidia"];

/// How deep below such a place it may lie.
const DEPTH: u32 = 2;

/// The kernel that runs and those that the image has the module for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernels {
    /// The running one's release.
    pub running: Option<String>,
    /// Releases that have the module, sorted.
    pub built_for: Vec<String>,
}

impl Kernels {
    /// Whether the module is there, and only for other kernels.
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        let Some(running) = &self.running else { return false };
        !self.built_for.is_empty() && !self.built_for.contains(running)
    }
}

/// Looks at the disk.
#[must_use]
pub fn read(root: &Root) -> Kernels {
    let running = files::read_text(&root.path(RELEASE)).ok();
    let mut built_for = Vec::new();
    for tree in TREES.map(|tree| root.path(tree)) {
        for release in files::names_in(&tree) {
            let places = PLACES.map(|place| tree.join(&release).join(place));
            if places.iter().any(|place| has_module(place, DEPTH)) && !built_for.contains(&release)
            {
                built_for.push(release);
            }
        }
    }
    built_for.sort();
    Kernels { running: running.map(|text| text.trim().to_owned()), built_for }
}

/// `nvidia.ko`, or the same compressed.
fn has_module(directory: &Path, depth: u32) -> bool {
    let names = files::names_in(directory);
    let is_module = |name: &String| name == "nvidia.ko" || name.starts_with("nvidia.ko.");
    names.iter().any(is_module)
        || (depth > 0 && names.iter().any(|name| has_module(&directory.join(name), depth - 1)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn kernels(running: &str, modules: &[&str]) -> Kernels {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let write = |path: &str, text: &str| {
            let path = root.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(RELEASE, running);
        modules.iter().for_each(|module| write(module, ""));
        read(&root)
    }

    #[test]
    fn a_module_for_other_kernels_alone_is_a_mismatch() {
        let ours = "/lib/modules/6.12.53/extra/nvidia/nvidia.ko.xz";
        let other = "/opt/nvidia/current/lib/modules/6.12.40/kernel/drivers/video/nvidia.ko";
        for (modules, mismatch) in [
            (&[][..], false),
            (&[ours], false),
            (&[other], true),
            (&[ours, other], false),
            (&["/lib/modules/6.12.40/kernel/drivers/net/nvidia.ko"], false),
            (&["/lib/modules/6.12.40/updates/dkms/nvidia-uvm.ko"], false),
        ] {
            assert_eq!(kernels("6.12.53\n", modules).is_mismatch(), mismatch, "{modules:?}");
        }
    }
}
