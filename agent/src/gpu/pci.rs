//! NVIDIA functions on the PCI bus, from sysfs: no driver is asked, so this never hangs.

use crate::host::{Root, files};

const DEVICES: &str = "/sys/bus/pci/devices";
const NVIDIA: &str = "0x10de";
/// VGA controller and 3D controller: the upper sixteen bits of a function's class.
const DISPLAY_CLASSES: [&str; 2] = ["0x0300", "0x0302"];

/// One GPU on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciGpu {
    /// Address, `0000:53:00.0`.
    pub address: String,
    /// Device id, `0x2330`; empty when it cannot be read.
    pub device: String,
}

/// The GPUs on the bus, by address; `None` when the bus cannot be read.
#[must_use]
pub fn gpus(root: &Root) -> Option<Vec<PciGpu>> {
    let directory = root.path(DEVICES);
    if !directory.is_dir() {
        return None;
    }
    let read = |address: &str, name: &str| {
        let path = directory.join(address).join(name);
        files::read_text(&path).map(|text| text.trim().to_ascii_lowercase()).unwrap_or_default()
    };
    let found = files::names_in(&directory).into_iter().filter_map(|address| {
        let class = read(&address, "class");
        let is_gpu = read(&address, "vendor") == NVIDIA
            && DISPLAY_CLASSES.iter().any(|display| class.starts_with(display));
        is_gpu.then(|| PciGpu { device: read(&address, "device"), address })
    });
    Some(found.collect())
}

/// An address as sysfs writes it: four digits of domain, lower case. NVML writes eight.
#[must_use]
pub fn normalize(address: &str) -> String {
    let address = address.to_ascii_lowercase();
    match address.split_once(':') {
        Some((domain, rest)) if rest.contains(':') => {
            let domain = domain.trim_start_matches('0');
            format!("{domain:0>4}:{rest}")
        }
        _ => format!("0000:{address}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn addresses_agree_whoever_writes_them() {
        for (written, normal) in [
            ("00000000:53:00.0", "0000:53:00.0"),
            ("0000:CA:00.0", "0000:ca:00.0"),
            ("00010000:01:00.0", "10000:01:00.0"),
            ("53:00.0", "0000:53:00.0"),
        ] {
            assert_eq!(normalize(written), normal);
        }
    }

    #[test]
    fn only_nvidia_display_functions_are_gpus() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        assert_eq!(gpus(&root), None);
        for (address, vendor, class) in [
            ("0000:64:00.0", "0x10de", "0x030200"),
            ("0000:53:00.0", "0x10DE", "0x030000"),
            // An NVSwitch, an audio function, and another vendor's display.
            ("0000:06:00.0", "0x10de", "0x068000"),
            ("0000:53:00.1", "0x10de", "0x040300"),
            ("0000:00:03.0", "0x1d0f", "0x030000"),
        ] {
            let path = root.path(DEVICES).join(address);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("vendor"), format!("{vendor}\n")).unwrap();
            fs::write(path.join("class"), format!("{class}\n")).unwrap();
            fs::write(path.join("device"), "0x2330\n").unwrap();
        }
        let found = gpus(&root).unwrap();
        let addresses: Vec<_> = found.iter().map(|gpu| gpu.address.as_str()).collect();
        assert_eq!(addresses, ["0000:53:00.0", "0000:64:00.0"]);
        assert_eq!(found[0].device, "0x2330");
    }
}
