//! EFA, the network adapters that GPUs of different nodes reach each other through.

use super::pci::{self, EfaFunction};
use crate::host::{Root, files};

const DEVICES: &str = "/sys/class/infiniband";
const AMAZON: &str = "0x1d0f";

/// The EFA adapters on the bus, and those that their driver has brought up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Efa {
    /// On the PCI bus.
    pub functions: Vec<EfaFunction>,
    /// Devices that programs can use, by name.
    pub devices: Vec<String>,
}

/// Looks at sysfs; this never hangs.
#[must_use]
pub fn read(root: &Root) -> Efa {
    let is_efa = |name: &String| {
        let vendor = root.path(DEVICES).join(name).join("device/vendor");
        files::read_text(&vendor).is_ok_and(|vendor| vendor.trim() == AMAZON)
    };
    let devices = files::names_in(&root.path(DEVICES)).into_iter().filter(is_efa).collect();
    Efa { functions: pci::efas(root), devices }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn adapters_on_the_bus_and_devices_of_their_driver() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        assert_eq!(read(&root), Efa::default());
        let write = |path: &str, text: &str| {
            let path = root.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (address, device) in [("0000:4f:00.0", "0xefa2"), ("0000:05:00.0", "0xec20")] {
            write(&format!("/sys/bus/pci/devices/{address}/vendor"), "0x1d0f\n");
            write(&format!("/sys/bus/pci/devices/{address}/device"), device);
        }
        write("/sys/class/infiniband/rdmap79s0/device/vendor", "0x1d0f\n");
        write("/sys/class/infiniband/mlx5_0/device/vendor", "0x15b3\n");
        let efa = read(&root);
        assert_eq!(efa.functions.len(), 1);
        assert_eq!(efa.functions[0].address, "0000:4f:00.0");
        assert_eq!(efa.devices, ["rdmap79s0"]);
    }
}
