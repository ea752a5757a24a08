//! What the models look like through NVML: idle values of a healthy one.

/// What a model looks like through NVML.
pub(super) struct Model {
    /// As EC2 names it, with the memory in MiB where one name has two.
    pub(super) ec2: (&'static str, Option<u64>),
    /// The family whose types EC2's answer gives no name for.
    pub(super) family: Option<&'static str>,
    pub(super) name: &'static str,
    pub(super) pci_device: u32,
    pub(super) architecture: u32,
    pub(super) compute_capability: (i32, i32),
    pub(super) memory_mib: u64,
    pub(super) power_watts: (u32, u32),
    pub(super) sm_clock: (u32, u32),
    pub(super) memory_clock: (u32, u32),
    pub(super) pcie_generation: u32,
    pub(super) nvlinks: u32,
    /// Switches of the baseboard that are functions on the PCI bus.
    pub(super) nvswitches: u32,
    pub(super) has_hbm: bool,
    pub(super) mig: bool,
    /// The first driver that knows it, when the simulated nodes' own does not.
    pub(super) driver: Option<&'static str>,
}

/// NVML's numbers of the architectures.
pub(super) const VOLTA: u32 = 5;
pub(super) const TURING: u32 = 6;
pub(super) const AMPERE: u32 = 7;
pub(super) const ADA: u32 = 8;
pub(super) const HOPPER: u32 = 9;
pub(super) const BLACKWELL: u32 = 10;

#[rustfmt::skip]
pub(super) const MODELS: &[Model] = &[
    Model { family: None, ec2: ("T4", None), name: "Tesla T4", pci_device: 0x1eb8, architecture: TURING, compute_capability: (7, 5), memory_mib: 15_360, power_watts: (10, 70), sm_clock: (300, 1_590), memory_clock: (405, 5_001), pcie_generation: 3, nvlinks: 0, nvswitches: 0, has_hbm: false, mig: false, driver: None },
    Model { family: None, ec2: ("A10G", None), name: "NVIDIA A10G", pci_device: 0x2237, architecture: AMPERE, compute_capability: (8, 6), memory_mib: 23_028, power_watts: (16, 300), sm_clock: (210, 1_710), memory_clock: (405, 6_251), pcie_generation: 4, nvlinks: 0, nvswitches: 0, has_hbm: false, mig: false, driver: None },
    Model { family: None, ec2: ("L4", None), name: "NVIDIA L4", pci_device: 0x27b8, architecture: ADA, compute_capability: (8, 9), memory_mib: 23_034, power_watts: (12, 72), sm_clock: (210, 2_040), memory_clock: (405, 6_251), pcie_generation: 4, nvlinks: 0, nvswitches: 0, has_hbm: false, mig: false, driver: None },
    Model { family: None, ec2: ("L40S", None), name: "NVIDIA L40S", pci_device: 0x26b9, architecture: ADA, compute_capability: (8, 9), memory_mib: 46_068, power_watts: (24, 350), sm_clock: (210, 2_520), memory_clock: (405, 9_001), pcie_generation: 4, nvlinks: 0, nvswitches: 0, has_hbm: false, mig: false, driver: None },
    Model { family: None, ec2: ("A100", Some(40_960)), name: "NVIDIA A100-SXM4-40GB", pci_device: 0x20b0, architecture: AMPERE, compute_capability: (8, 0), memory_mib: 40_960, power_watts: (52, 400), sm_clock: (210, 1_410), memory_clock: (1_215, 1_215), pcie_generation: 4, nvlinks: 12, nvswitches: 6, has_hbm: true, mig: true, driver: None },
    Model { family: None, ec2: ("A100", Some(81_920)), name: "NVIDIA A100-SXM4-80GB", pci_device: 0x20b2, architecture: AMPERE, compute_capability: (8, 0), memory_mib: 81_920, power_watts: (60, 400), sm_clock: (210, 1_410), memory_clock: (1_593, 1_593), pcie_generation: 4, nvlinks: 12, nvswitches: 6, has_hbm: true, mig: true, driver: None },
    Model { family: None, ec2: ("H100", None), name: "NVIDIA H100 80GB HBM3", pci_device: 0x2330, architecture: HOPPER, compute_capability: (9, 0), memory_mib: 81_559, power_watts: (70, 700), sm_clock: (345, 1_980), memory_clock: (2_619, 2_619), pcie_generation: 5, nvlinks: 18, nvswitches: 4, has_hbm: true, mig: true, driver: None },
    Model { family: None, ec2: ("H200", None), name: "NVIDIA H200", pci_device: 0x2335, architecture: HOPPER, compute_capability: (9, 0), memory_mib: 143_771, power_watts: (76, 700), sm_clock: (345, 1_980), memory_clock: (3_201, 3_201), pcie_generation: 5, nvlinks: 18, nvswitches: 4, has_hbm: true, mig: true, driver: None },
    Model { family: None, ec2: ("B200", None), name: "NVIDIA B200", pci_device: 0x2901, architecture: BLACKWELL, compute_capability: (10, 0), memory_mib: 183_359, power_watts: (140, 1_000), sm_clock: (120, 1_965), memory_clock: (3_996, 3_996), pcie_generation: 5, nvlinks: 18, nvswitches: 0, has_hbm: true, mig: true, driver: None },
    Model { family: Some("p3"), ec2: ("V100 16GB", None), name: "Tesla V100-SXM2-16GB", pci_device: 0x1db1, architecture: VOLTA, compute_capability: (7, 0), memory_mib: 16_384, power_watts: (38, 300), sm_clock: (135, 1_530), memory_clock: (877, 877), pcie_generation: 3, nvlinks: 6, nvswitches: 0, has_hbm: true, mig: false, driver: None },
    Model { family: None, ec2: ("V100", None), name: "Tesla V100-SXM2-32GB", pci_device: 0x1db5, architecture: VOLTA, compute_capability: (7, 0), memory_mib: 32_768, power_watts: (40, 300), sm_clock: (135, 1_530), memory_clock: (877, 877), pcie_generation: 3, nvlinks: 6, nvswitches: 0, has_hbm: true, mig: false, driver: None },
    Model { family: None, ec2: ("T4g", None), name: "NVIDIA T4G", pci_device: 0x1eb4, architecture: TURING, compute_capability: (7, 5), memory_mib: 15_360, power_watts: (10, 70), sm_clock: (300, 1_590), memory_clock: (405, 5_001), pcie_generation: 3, nvlinks: 0, nvswitches: 0, has_hbm: false, mig: false, driver: None },
    Model { family: None, ec2: ("RTX PRO 4500", None), name: "NVIDIA RTX PRO 4500 Blackwell", pci_device: 0x2c31, architecture: BLACKWELL, compute_capability: (12, 0), memory_mib: 32_623, power_watts: (14, 200), sm_clock: (180, 2_617), memory_clock: (405, 14_001), pcie_generation: 5, nvlinks: 0, nvswitches: 0, has_hbm: false, mig: false, driver: Some("595.71.05") },
    Model { family: None, ec2: ("RTX PRO Server 6000", None), name: "NVIDIA RTX PRO 6000 Blackwell Server Edition", pci_device: 0x2bb5, architecture: BLACKWELL, compute_capability: (12, 0), memory_mib: 97_887, power_watts: (31, 600), sm_clock: (180, 2_430), memory_clock: (405, 12_481), pcie_generation: 5, nvlinks: 0, nvswitches: 0, has_hbm: false, mig: true, driver: None },
    Model { family: None, ec2: ("B300", None), name: "NVIDIA B300 SXM6 AC", pci_device: 0x3182, architecture: BLACKWELL, compute_capability: (10, 3), memory_mib: 275_040, power_watts: (180, 1_100), sm_clock: (120, 2_032), memory_clock: (3_996, 3_996), pcie_generation: 6, nvlinks: 18, nvswitches: 0, has_hbm: true, mig: true, driver: None },
    Model { family: Some("p6e-gb200"), ec2: ("GB200", None), name: "NVIDIA GB200", pci_device: 0x2941, architecture: BLACKWELL, compute_capability: (10, 0), memory_mib: 189_471, power_watts: (150, 1_200), sm_clock: (120, 2_062), memory_clock: (3_996, 3_996), pcie_generation: 5, nvlinks: 18, nvswitches: 0, has_hbm: true, mig: true, driver: None },
];
