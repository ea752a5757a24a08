//! The NVIDIA kernel module and its device nodes, from files: no call into the driver.

use super::expected::Kind;
use crate::host::{Root, files};

/// What the kernel shows of the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Module {
    /// Version of the loaded module; none when it is not loaded.
    pub version: Option<String>,
    /// Which file said so.
    pub source: &'static str,
    /// Of which kind the loaded module is, open or proprietary.
    pub kind: Option<Kind>,
    /// The kind that the image's own units have chosen, on EKS's images since September 2026.
    pub chosen: Option<Kind>,
    /// Numbers of the device nodes `/dev/nvidia<n>`, in order.
    pub device_nodes: Vec<u32>,
    /// PCI addresses of the GPUs that the module drives, in order.
    pub driven: Vec<String>,
    /// Whether nvidia-peermem is loaded, which lets other adapters than EFA reach the GPUs' memory.
    pub peermem: bool,
}

const VERSION: &str = "/proc/driver/nvidia/version";
const MODULE_VERSION: &str = "/sys/module/nvidia/version";
/// Where nvidia-driver-resolve writes down what it chose.
const CHOSEN: &str = "/opt/nvidia/current/.driver-flavor";

/// Reads what the kernel shows now.
#[must_use]
pub fn read(root: &Root) -> Module {
    let text = files::read_text(&root.path(VERSION)).unwrap_or_default();
    let (version, source) = (parse_version(&text), VERSION);
    let chosen = files::read_text(&root.path(CHOSEN)).unwrap_or_default();
    let (version, source) = match version {
        Some(version) => (Some(version), source),
        None => {
            let text = files::read_text(&root.path(MODULE_VERSION)).unwrap_or_default();
            let version = text.trim();
            ((!version.is_empty()).then(|| version.to_owned()), MODULE_VERSION)
        }
    };
    Module {
        kind: version.is_some().then(|| kind_of(&text)).flatten(),
        chosen: kind_of(&chosen.to_ascii_lowercase()),
        version,
        source,
        device_nodes: device_nodes(&files::names_in(&root.path("/dev"))),
        driven: files::names_in(&root.path("/proc/driver/nvidia/gpus")),
        peermem: loaded(root).iter().any(|name| name == "nvidia_peermem"),
    }
}

/// The names of all modules that the kernel has loaded.
#[must_use]
pub fn loaded(root: &Root) -> Vec<String> {
    let text = files::read_text(&root.path("/proc/modules")).unwrap_or_default();
    text.lines().filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

/// `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build …`
fn parse_version(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    let is_version =
        |word: &&str| word.contains('.') && word.split('.').all(|part| part.parse::<u32>().is_ok());
    line.split_whitespace().find(is_version).map(str::to_owned)
}

/// From `Open Kernel Module` or `UNIX x86_64 Kernel Module`, or from a word like `lts-open`.
fn kind_of(text: &str) -> Option<Kind> {
    if text.contains("grid") {
        Some(Kind::Grid)
    } else if text.contains("Open Kernel Module") || text.contains("open") {
        Some(Kind::Open)
    } else {
        let is_closed = text.contains("Kernel Module") || text.contains("proprietary");
        is_closed.then_some(Kind::Proprietary)
    }
}

fn device_nodes(names: &[String]) -> Vec<u32> {
    let mut numbers: Vec<u32> =
        names.iter().filter_map(|name| name.strip_prefix("nvidia")?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn versions_of_both_module_flavours() {
        for text in [
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23 10:11:16 UTC 2025\nGCC version:  gcc 14.2.1\n",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (root@builder)\n",
        ] {
            assert_eq!(parse_version(text).as_deref(), Some("580.95.05"));
        }
        assert_eq!(parse_version("GCC version: 14.2.1\n"), None);
        assert_eq!(parse_version(""), None);
    }

    #[test]
    fn the_kind_is_told_by_the_module_and_by_the_image() {
        for (text, kind) in [
            ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05", Some(Kind::Proprietary)),
            ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64", Some(Kind::Open)),
            ("lts-proprietary\n", Some(Kind::Proprietary)),
            ("pb-open\n", Some(Kind::Open)),
            ("open-grid\n", Some(Kind::Grid)),
            ("", None),
        ] {
            assert_eq!(kind_of(text), kind, "{text}");
        }
    }

    #[test]
    fn only_numbered_nodes_are_gpus() {
        let names = ["nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm", "nvidia", "nvme0"];
        assert_eq!(device_nodes(&names.map(str::to_owned)), [2, 10]);
    }

    #[test]
    fn the_module_is_absent_until_a_file_says_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        assert_eq!(read(&root).version, None);
        fs::create_dir_all(root.path("/sys/module/nvidia")).unwrap();
        fs::write(root.path(MODULE_VERSION), "570.1.2\n").unwrap();
        let module = read(&root);
        assert_eq!((module.version.as_deref(), module.source), (Some("570.1.2"), MODULE_VERSION));
    }
}
