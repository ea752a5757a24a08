//! NVIDIA functions on the PCI bus, and EFA beside them, from sysfs: no driver is asked, so this never hangs.

use std::path::PathBuf;

use crate::host::{Root, files};

const DEVICES: &str = "/sys/bus/pci/devices";
const NVIDIA: &str = "0x10de";
/// VGA controller and 3D controller: the upper sixteen bits of a function's class.
const DISPLAY_CLASSES: [&str; 2] = ["0x0300", "0x0302"];
/// Other bridge: an NVSwitch.
const BRIDGE_CLASS: &str = "0x0680";
const AMAZON: &str = "0x1d0f";
/// Device ids of EFA begin so.
const EFA: &str = "0xefa";
/// What the kernel says of a link that does not answer: all six bits of its width.
const NO_WIDTH: u32 = 63;

/// One GPU on the bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PciGpu {
    /// Address, `0000:53:00.0`.
    pub address: String,
    /// Device id, `0x2330`; empty when it cannot be read.
    pub device: String,
    /// Lanes in use and at most, where the kernel says.
    pub width: Option<(u32, u32)>,
    /// Whether its config space reads as nothing but ones: it is gone, and the kernel has not noticed.
    pub is_dead: bool,
    /// The root port that it hangs on, where the tree shows one.
    pub root_port: Option<String>,
    /// Errors of its link that the kernel has counted, where it counts them.
    pub errors: Option<PciErrors>,
}

/// Errors of a PCIe link since the boot: advanced error reporting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PciErrors {
    /// Corrected.
    pub correctable: u64,
    /// Not corrected; the link lives on.
    pub nonfatal: u64,
    /// Not corrected; the link is lost.
    pub fatal: u64,
}

/// One EFA adapter on the bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EfaFunction {
    /// Address.
    pub address: String,
    /// Whether it is in an IOMMU group.
    pub has_iommu_group: bool,
    /// The root port that it hangs on, where the tree shows one.
    pub root_port: Option<String>,
}

/// One function's files.
struct Function {
    address: String,
    directory: PathBuf,
}

impl Function {
    fn read(&self, name: &str) -> String {
        let text = files::read_text(&self.directory.join(name));
        text.map(|text| text.trim().to_ascii_lowercase()).unwrap_or_default()
    }

    fn is_of(&self, vendor: &str, classes: &[&str]) -> bool {
        let class = self.read("class");
        self.read("vendor") == vendor && classes.iter().any(|prefix| class.starts_with(prefix))
    }

    fn width(&self) -> Option<(u32, u32)> {
        let lanes = |name| {
            let lanes: u32 = self.read(name).parse().ok()?;
            (1..NO_WIDTH).contains(&lanes).then_some(lanes)
        };
        Some((lanes("current_link_width")?, lanes("max_link_width")?))
    }

    /// A config space that cannot be read is unknown, and so not dead.
    fn is_dead(&self) -> bool {
        let head = files::read(&self.directory.join("config")).unwrap_or_default();
        head.len() >= 4 && head[..4].iter().all(|byte| *byte == 0xff)
    }

    /// The last line of each of the kernel's lists: `TOTAL_ERR_COR 12`.
    fn errors(&self) -> Option<PciErrors> {
        let total = |name: &str| -> Option<u64> {
            let list = files::read_text(&self.directory.join(name)).ok()?;
            let (_, count) = list
                .lines()
                .filter_map(|l| l.split_once(' '))
                .find(|(n, _)| n.starts_with("TOTAL"))?;
            count.trim().parse().ok()
        };
        Some(PciErrors {
            correctable: total("aer_dev_correctable")?,
            nonfatal: total("aer_dev_nonfatal")?,
            fatal: total("aer_dev_fatal")?,
        })
    }

    /// `/sys/devices/pci0000:50/0000:50:01.0/0000:53:00.0`: the second of the names.
    fn root_port(&self) -> Option<String> {
        let path = self.directory.canonicalize().ok()?;
        let names: Vec<&str> = path.iter().filter_map(|name| name.to_str()).collect();
        let root = names.iter().position(|name| name.starts_with("pci") && name.contains(':'))?;
        names.get(root + 1).filter(|port| **port != self.address).map(|port| (*port).to_owned())
    }
}

/// Every function on the bus, by address; `None` when the bus cannot be read.
fn functions(root: &Root) -> Option<impl Iterator<Item = Function>> {
    let devices = root.path(DEVICES);
    if !devices.is_dir() {
        return None;
    }
    let names = files::names_in(&devices);
    Some(
        names
            .into_iter()
            .map(move |address| Function { directory: devices.join(&address), address }),
    )
}

/// The GPUs on the bus, by address; `None` when the bus cannot be read.
#[must_use]
pub fn gpus(root: &Root) -> Option<Vec<PciGpu>> {
    let gpus = functions(root)?.filter(|function| function.is_of(NVIDIA, &DISPLAY_CLASSES));
    let gpus = gpus.map(|function| PciGpu {
        device: function.read("device"),
        width: function.width(),
        is_dead: function.is_dead(),
        root_port: function.root_port(),
        errors: function.errors(),
        address: function.address,
    });
    Some(gpus.collect())
}

/// The NVSwitches on the bus.
#[must_use]
pub fn nvswitches(root: &Root) -> usize {
    let functions = functions(root).into_iter().flatten();
    functions.filter(|function| function.is_of(NVIDIA, &[BRIDGE_CLASS])).count()
}

/// The EFA adapters on the bus.
#[must_use]
pub fn efas(root: &Root) -> Vec<EfaFunction> {
    let functions = functions(root).into_iter().flatten();
    let efas = functions.filter(|function| {
        function.read("vendor") == AMAZON && function.read("device").starts_with(EFA)
    });
    efas.map(|function| EfaFunction {
        has_iommu_group: function.directory.join("iommu_group").exists(),
        root_port: function.root_port(),
        address: function.address,
    })
    .collect()
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
