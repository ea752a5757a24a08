//! EFA, the network adapters that GPUs of different nodes reach each other through.

use std::collections::BTreeMap;

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
    /// What their ports have counted; only the watch asks.
    pub errors: Errors,
}

/// Errors that ports have counted since the driver was loaded, by device and counter.
pub type Errors = BTreeMap<(String, &'static str), u64>;

/// Counters of a port that mean trouble. The kernel has more: what it was asked and refused
/// (`reg_mr_err` and its like) is a program's own mistake.
pub const ERRORS: [&str; 10] = [
    "rx_drops",
    "rdma_read_wr_err",
    "rdma_write_wr_err",
    "rdma_write_recv_err",
    "send_wr_err",
    "recv_wr_err",
    "retrans_timeout_events",
    "unresponsive_remote_events",
    "impaired_remote_conn_events",
    "no_completion_cmds",
];

/// Looks at sysfs; this never hangs.
#[must_use]
pub fn read(root: &Root) -> Efa {
    Efa { functions: pci::efas(root), devices: devices(root), errors: Errors::new() }
}

/// Reads what the ports have counted. Each device is asked for it, and one that is ill may let us wait for
/// seconds: never from where others wait, too.
#[must_use]
pub fn errors(root: &Root) -> Errors {
    let mut errors = Errors::new();
    for device in devices(root) {
        let counters = root.path(DEVICES).join(&device).join("ports/1/hw_counters");
        for counter in ERRORS {
            let text = files::read_text(&counters.join(counter)).unwrap_or_default();
            if let Ok(count) = text.trim().parse() {
                errors.insert((device.clone(), counter), count);
            }
        }
    }
    errors
}

fn devices(root: &Root) -> Vec<String> {
    let is_efa = |name: &String| {
        let vendor = root.path(DEVICES).join(name).join("device/vendor");
        files::read_text(&vendor).is_ok_and(|vendor| vendor.trim() == AMAZON)
    };
    files::names_in(&root.path(DEVICES)).into_iter().filter(is_efa).collect()
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
        let counters = "/sys/class/infiniband/rdmap79s0/ports/1/hw_counters";
        write(&format!("{counters}/rx_drops"), "7\n");
        write(&format!("{counters}/rdma_read_wr_err"), "0\n");
        write(&format!("{counters}/rx_bytes"), "99\n");
        let efa = read(&root);
        let counted = |counter, count| (("rdmap79s0".to_owned(), counter), count);
        let known = [counted("rdma_read_wr_err", 0), counted("rx_drops", 7)];
        assert_eq!(errors(&root), Errors::from(known));
        assert_eq!(efa.functions.len(), 1);
        assert_eq!(efa.functions[0].address, "0000:4f:00.0");
        assert_eq!(efa.devices, ["rdmap79s0"]);
    }
}
