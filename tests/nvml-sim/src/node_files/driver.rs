//! What the driver itself shows, and what an image that resolves its driver keeps on disk.

use crate::state::{Flavor, Gpu, Setup, State};

use super::{NodeFile, RESOLVED, link, text};

/// The kernel that the simulated nodes run.
const KERNEL: &str = "6.12.53-69.119.amzn2023.x86_64";

/// Of a loaded module: `/proc/driver/nvidia`, `/sys/module`, device nodes.
pub(super) fn files(state: &State) -> Vec<NodeFile> {
    let version = state.module_version();
    let gsp = state.gpus.iter().any(|gpu| gpu.gsp.enabled);
    let mut files = vec![
        text("/proc/driver/nvidia/version", version_text(state)),
        text(
            "/proc/driver/nvidia/params",
            format!(
                "ResmanDebugLevel: 4294967295\nModifyDeviceFiles: 1\nDeviceFileUID: 0\n\
                 DeviceFileGID: 0\nDeviceFileMode: 438\nEnableGpuFirmware: {}\n\
                 EnableUserNUMAManagement: 1\nDynamicPowerManagement: 3\n",
                if gsp { 18 } else { 0 }
            ),
        ),
        text("/sys/module/nvidia/version", format!("{version}\n")),
        text("/sys/module/nvidia/initstate", "live\n"),
        text("/sys/module/nvidia_uvm/version", format!("{version}\n")),
        text("/dev/nvidiactl", ""),
        text("/dev/nvidia-uvm", ""),
    ];
    files.extend(state.gpus.iter().flat_map(gpu));
    for (index, _) in state.nvswitches.iter().enumerate() {
        files.push(text(format!("/dev/nvidia-nvswitch{index}"), ""));
    }
    if !state.nvswitches.is_empty() {
        files.push(text("/dev/nvidia-nvswitchctl", ""));
    }
    files
}

fn version_text(state: &State) -> String {
    let (version, machine) = (state.module_version(), state.machine.name());
    let module = match state.module_flavor {
        Flavor::Open => {
            format!(
                "NVIDIA UNIX Open Kernel Module for {machine}  {version}  Release Build  (root@builder)"
            )
        }
        Flavor::Proprietary => {
            format!("NVIDIA UNIX {machine} Kernel Module  {version}  Tue Sep 23 10:11:16 UTC 2025")
        }
    };
    format!(
        "NVRM version: {module}\n\
         GCC version:  gcc version 11.5.0 20240719 (Red Hat 11.5.0-5) (GCC)\n"
    )
}

fn gpu(gpu: &Gpu) -> [NodeFile; 2] {
    let information = format!(
        "Model: \t\t {}\nIRQ:   \t\t {}\nGPU UUID: \t {}\nVideo BIOS: \t 96.00.99.00.01\n\
         Bus Type: \t PCIe\nBus Location: \t {}\nDevice Minor: \t {}\nGPU Excluded:\t No\n",
        gpu.name,
        160 + gpu.index,
        gpu.uuid,
        gpu.pci,
        gpu.minor
    );
    [
        text(format!("/dev/nvidia{}", gpu.minor), ""),
        text(format!("/proc/driver/nvidia/gpus/{}/information", gpu.pci), information),
    ]
}

/// The two trees of which one was chosen, and the marks that the steps leave.
pub(super) fn trees(state: &State) -> Vec<NodeFile> {
    debug_assert_eq!(state.setup, Setup::Resolve);
    let flavor = match state.module_flavor {
        Flavor::Open => "open",
        Flavor::Proprietary => "proprietary",
    };
    let mut files: Vec<NodeFile> = ["lts", "pb"]
        .into_iter()
        .map(|tree| {
            text(format!("{RESOLVED}/{tree}/lib/modules/{KERNEL}/extra/nvidia/nvidia.ko"), "")
        })
        .collect();
    files.push(link(format!("{RESOLVED}/current"), "lts"));
    files.push(text(format!("{RESOLVED}/lts/.driver-flavor"), format!("lts-{flavor}\n")));
    if state.module_loaded {
        files.push(text(format!("{RESOLVED}/lts/.loaded"), ""));
        files.push(text(format!("{RESOLVED}/lts/.daemons-installed"), ""));
    }
    files
}
