//! Functions on the PCI bus as sysfs shows them, and the EFA devices behind some of them.

use crate::state::{Aer, Efa, Gpu, State};

use super::{Content, DEVICES, IOMMU_GROUPS, NodeFile, PCI_DEVICES, link, text};

/// 3D controller: a GPU without a display.
const CLASS_GPU: u32 = 0x03_0200;
/// Bridge of no other kind: an `NVSwitch`.
const CLASS_NVSWITCH: u32 = 0x06_8000;
/// Ethernet controller.
const CLASS_EFA: u32 = 0x02_0000;
const NVIDIA: u32 = 0x10de;
const AMAZON: u32 = 0x1d0f;
/// `NVSwitches` of Ampere's and of Hopper's baseboards.
const NVSWITCH_AMPERE: u32 = 0x1af1;
const NVSWITCH_HOPPER: u32 = 0x22a3;
const HOPPER: u32 = 9;
/// Length of the header that every function has.
const HEADER: usize = 64;

/// What the kernel counts of an EFA device, in `hw_counters`.
const EFA_COUNTERS: [&str; 22] = [
    "alloc_pd_err",
    "alloc_ucontext_err",
    "cmds_err",
    "completed_cmds",
    "create_ah_err",
    "create_cq_err",
    "create_qp_err",
    "keep_alive_rcvd",
    "mmap_err",
    "no_completion_cmds",
    "rdma_read_bytes",
    "rdma_read_resp_bytes",
    "rdma_read_wr_err",
    "rdma_write_bytes",
    "rdma_write_wr_err",
    "reg_mr_err",
    "retrans_bytes",
    "retrans_timeout_events",
    "rx_bytes",
    "rx_drops",
    "tx_bytes",
    "unresponsive_remote_events",
];

/// Buses of a large machine: each GPU's bridge has so many, and the first begins here.
const BRIDGES: (u32, u32) = (0x4e, 0x11);
/// The bridge of the `NVSwitches`.
const BRIDGE_OF_SWITCHES: u32 = 0xd0;

/// Every function, and the class directories of EFA.
pub(super) fn files(state: &State) -> Vec<NodeFile> {
    let tree = Tree { is_flat: state.flat_pci };
    let mut files: Vec<NodeFile> = state.gpus.iter().flat_map(|gpu| gpu_files(gpu, tree)).collect();
    let hopper = state.gpus.iter().any(|gpu| gpu.architecture >= HOPPER);
    let device = if hopper { NVSWITCH_HOPPER } else { NVSWITCH_AMPERE };
    for address in &state.nvswitches {
        let place = tree.place_of_switch(address);
        files.extend(function(&place, (NVIDIA, device), CLASS_NVSWITCH, false));
    }
    for (group, efa) in state.efa.iter().enumerate() {
        files.extend(efa_files(efa, state, group, tree));
    }
    files
}

/// Where functions are in the kernel's tree.
#[derive(Clone, Copy)]
struct Tree {
    /// There is none: each is a directory of the bus's own.
    is_flat: bool,
}

/// Where one function is.
struct Place {
    address: String,
    /// Its directory.
    directory: String,
    /// The link from the bus's folder to it.
    link: Option<NodeFile>,
}

impl Tree {
    /// A GPU's, and of what shares its root port; with another number, a port beside that.
    fn place(self, address: &str, port: u32) -> Place {
        let bus = address.get(5..7).and_then(|bus| u32::from_str_radix(bus, 16).ok());
        let (first, each) = BRIDGES;
        match bus.unwrap_or_default() {
            // On the root bus itself, as on EC2's smaller types.
            bus if bus < first => self.at(address, "pci0000:00"),
            bus => {
                let bridge = first + (bus - first) / each * each;
                self.below(address, bridge, port)
            }
        }
    }

    fn place_of_switch(self, address: &str) -> Place {
        self.below(address, BRIDGE_OF_SWITCHES, 1)
    }

    fn below(self, address: &str, bridge: u32, port: u32) -> Place {
        self.at(address, &format!("pci0000:{bridge:02x}/0000:{bridge:02x}:{port:02x}.0"))
    }

    fn at(self, address: &str, parent: &str) -> Place {
        let on_bus = format!("{PCI_DEVICES}/{address}");
        let address = address.to_owned();
        if self.is_flat {
            return Place { address, directory: on_bus, link: None };
        }
        let target = format!("../../../devices/{parent}/{address}");
        let directory = format!("{DEVICES}/{parent}/{address}");
        Place { address, directory, link: Some(link(on_bus, target)) }
    }
}

impl Place {
    fn file(&self, name: &str, contents: impl std::fmt::Display) -> NodeFile {
        text(format!("{}/{name}", self.directory), format!("{contents}\n"))
    }

    /// How many steps it is up to `/sys`.
    fn up_to_sys(&self) -> String {
        "../".repeat(self.directory.matches('/').count() - 1)
    }
}

fn gpu_files(gpu: &Gpu, tree: Tree) -> Vec<NodeFile> {
    let ids = (gpu.pci_device_id & 0xffff, gpu.pci_device_id >> 16);
    let place = tree.place(&gpu.pci, 1);
    let mut files = function(&place, ids, CLASS_GPU, gpu.off_bus);
    let device = |name: &str, contents: String| place.file(name, contents);
    // A function that does not answer reads as all ones: lanes in six bits, speed in four.
    let width = if gpu.off_bus { 63 } else { gpu.pcie.width.0 };
    let speed = if gpu.off_bus { "Unknown".to_owned() } else { link_speed(gpu.pcie.generation.0) };
    files.extend([
        device("current_link_width", width.to_string()),
        device("max_link_width", gpu.pcie.width.1.to_string()),
        device("current_link_speed", speed),
        device("max_link_speed", link_speed(gpu.pcie.generation.1)),
    ]);
    let Aer { correctable, nonfatal, fatal } = gpu.pcie.aer;
    files.extend([
        device("aer_dev_correctable", counters(&CORRECTABLE, correctable, "TOTAL_ERR_COR")),
        device("aer_dev_nonfatal", counters(&UNCORRECTABLE, nonfatal, "TOTAL_ERR_NONFATAL")),
        device("aer_dev_fatal", counters(&UNCORRECTABLE, fatal, "TOTAL_ERR_FATAL")),
    ]);
    files
}

/// Kinds of error as the kernel names them; what was counted is counted as the second kind.
const CORRECTABLE: [&str; 8] =
    ["RxErr", "BadTLP", "BadDLLP", "Rollover", "Timeout", "NonFatalErr", "CorrIntErr", "HeaderOF"];
const UNCORRECTABLE: [&str; 6] = ["Undefined", "DLP", "SDES", "TLP", "FCP", "CmpltTO"];

fn counters(kinds: &[&str], total: u32, sum: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for (index, kind) in kinds.iter().enumerate() {
        lines.push(format!("{kind} {}", if index == 1 { total } else { 0 }));
    }
    lines.push(format!("{sum} {total}"));
    lines.join("\n")
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

/// What every function has. What the kernel read at boot stays when the function does not answer
/// any more; its configuration space is read anew each time.
fn function(place: &Place, (vendor, device): (u32, u32), class: u32, gone: bool) -> Vec<NodeFile> {
    let mut header = vec![0; HEADER];
    let mut put = |at: usize, value: u32, bytes: usize| {
        header[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
    };
    put(0, vendor, 2);
    put(2, device, 2);
    // Memory space, bus master; revision in the byte below the class.
    put(4, 0x0006, 2);
    put(8, (class << 8) | 0xa1, 4);
    if gone {
        header.fill(0xff);
    }
    let config = format!("{}/config", place.directory);
    let mut files = vec![
        place.file("vendor", format_args!("0x{vendor:04x}")),
        place.file("device", format_args!("0x{device:04x}")),
        place.file("class", format_args!("0x{class:06x}")),
        NodeFile { path: config, content: Content::Bytes(header) },
    ];
    files.extend(place.link.clone());
    files
}

fn efa_files(efa: &Efa, state: &State, group: usize, tree: Tree) -> Vec<NodeFile> {
    let class = format!("/sys/class/infiniband/{}", efa.name);
    let place = tree.place(&efa.pci, if efa.apart { 2 } else { 1 });
    let mut files = function(&place, (AMAZON, device_of(state)), CLASS_EFA, false);
    if !efa.apart {
        files.push(text(format!("{IOMMU_GROUPS}/{group}/type"), "DMA-FQ\n"));
        files.push(link(
            format!("{}/iommu_group", place.directory),
            format!("{}kernel/iommu_groups/{group}", place.up_to_sys()),
        ));
    }
    files.push(link(
        format!("{class}/device"),
        format!("../../../bus/pci/devices/{}", place.address),
    ));
    let port = |name: &str, contents: &str| {
        text(format!("{class}/ports/1/{name}"), format!("{contents}\n"))
    };
    files.extend([
        port("state", if efa.up { "4: ACTIVE" } else { "1: DOWN" }),
        port("phys_state", if efa.up { "5: LinkUp" } else { "3: Disabled" }),
        port("link_layer", "Unspecified"),
    ]);
    for counter in EFA_COUNTERS {
        let value = efa.counters.get(counter).copied().unwrap_or_default();
        files.push(port(&format!("hw_counters/{counter}"), &value.to_string()));
    }
    files
}

/// The device's generation goes with the machine's.
fn device_of(state: &State) -> u32 {
    match state.gpus.first().map_or(0, |gpu| gpu.architecture) {
        0..=6 => 0xefa0,
        7 | 8 => 0xefa1,
        9 => 0xefa2,
        _ => 0xefa3,
    }
}
