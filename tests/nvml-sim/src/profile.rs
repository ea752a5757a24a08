//! The GPUs of an EC2 instance type, as a healthy driver shows them.
//!
//! How many GPUs of which model a type has comes from the table that the agent uses, so the two
//! cannot disagree; what a model looks like through NVML is here.

use crate::state::{Ecc, Fabric, Gpu, Nvlink, Pcie, RemappedRows, State, Utilization};

const INSTANCE_TYPES: &str = include_str!("../../../agent/src/gpu/ec2-gpu-instances.csv");

/// Driver of the simulated nodes: a version that EKS images of 2026 carry.
pub const DRIVER_VERSION: &str = "580.95.05";
const CUDA_VERSION: i32 = 13_000;

/// What a model looks like through NVML.
struct Model {
    /// As EC2 names it, with the memory in MiB where one name has two.
    ec2: (&'static str, Option<u64>),
    name: &'static str,
    pci_device: u32,
    architecture: u32,
    compute_capability: (i32, i32),
    memory_mib: u64,
    power_watts: (u32, u32),
    sm_clock: (u32, u32),
    memory_clock: (u32, u32),
    pcie_generation: u32,
    nvlinks: u32,
}

const TURING: u32 = 6;
const AMPERE: u32 = 7;
const ADA: u32 = 8;
const HOPPER: u32 = 9;
const BLACKWELL: u32 = 10;

#[rustfmt::skip]
const MODELS: &[Model] = &[
    Model { ec2: ("T4", None), name: "Tesla T4", pci_device: 0x1eb8, architecture: TURING, compute_capability: (7, 5), memory_mib: 15_360, power_watts: (10, 70), sm_clock: (300, 1_590), memory_clock: (405, 5_001), pcie_generation: 3, nvlinks: 0 },
    Model { ec2: ("A10G", None), name: "NVIDIA A10G", pci_device: 0x2237, architecture: AMPERE, compute_capability: (8, 6), memory_mib: 23_028, power_watts: (16, 300), sm_clock: (210, 1_710), memory_clock: (405, 6_251), pcie_generation: 4, nvlinks: 0 },
    Model { ec2: ("L4", None), name: "NVIDIA L4", pci_device: 0x27b8, architecture: ADA, compute_capability: (8, 9), memory_mib: 23_034, power_watts: (12, 72), sm_clock: (210, 2_040), memory_clock: (405, 6_251), pcie_generation: 4, nvlinks: 0 },
    Model { ec2: ("L40S", None), name: "NVIDIA L40S", pci_device: 0x26b9, architecture: ADA, compute_capability: (8, 9), memory_mib: 46_068, power_watts: (24, 350), sm_clock: (210, 2_520), memory_clock: (405, 9_001), pcie_generation: 4, nvlinks: 0 },
    Model { ec2: ("A100", Some(40_960)), name: "NVIDIA A100-SXM4-40GB", pci_device: 0x20b0, architecture: AMPERE, compute_capability: (8, 0), memory_mib: 40_960, power_watts: (52, 400), sm_clock: (210, 1_410), memory_clock: (1_215, 1_215), pcie_generation: 4, nvlinks: 12 },
    Model { ec2: ("A100", Some(81_920)), name: "NVIDIA A100-SXM4-80GB", pci_device: 0x20b2, architecture: AMPERE, compute_capability: (8, 0), memory_mib: 81_920, power_watts: (60, 400), sm_clock: (210, 1_410), memory_clock: (1_593, 1_593), pcie_generation: 4, nvlinks: 12 },
    Model { ec2: ("H100", None), name: "NVIDIA H100 80GB HBM3", pci_device: 0x2330, architecture: HOPPER, compute_capability: (9, 0), memory_mib: 81_559, power_watts: (70, 700), sm_clock: (345, 1_980), memory_clock: (2_619, 2_619), pcie_generation: 5, nvlinks: 18 },
    Model { ec2: ("H200", None), name: "NVIDIA H200", pci_device: 0x2335, architecture: HOPPER, compute_capability: (9, 0), memory_mib: 143_771, power_watts: (76, 700), sm_clock: (345, 1_980), memory_clock: (3_201, 3_201), pcie_generation: 5, nvlinks: 18 },
    Model { ec2: ("B200", None), name: "NVIDIA B200", pci_device: 0x2901, architecture: BLACKWELL, compute_capability: (10, 0), memory_mib: 183_359, power_watts: (140, 1_000), sm_clock: (120, 1_965), memory_clock: (3_996, 3_996), pcie_generation: 5, nvlinks: 18 },
];

/// PCI buses of the eight GPUs behind the switches of the large types.
const EIGHT_SWITCHED: [u8; 8] = [0x53, 0x64, 0x75, 0x86, 0x97, 0xa8, 0xb9, 0xca];

/// A healthy node of an instance type; none for a type without whole GPUs of a known model.
#[must_use]
pub fn for_instance_type(instance_type: &str) -> Option<State> {
    for_instance(instance_type, "")
}

/// The same with UUIDs and serial numbers of its own: `seed` is the instance id.
#[must_use]
pub fn for_instance(instance_type: &str, seed: &str) -> Option<State> {
    let (count, model) = lookup(instance_type)?;
    let gpus = (0..count).map(|index| gpu(model, index, count, seed)).collect();
    Some(State {
        driver_version: DRIVER_VERSION.into(),
        module_version: None,
        module_loaded: true,
        cuda_version: CUDA_VERSION,
        gpus,
        faults: crate::state::Faults::default(),
    })
}

/// Every instance type that [`for_instance_type`] knows.
pub fn instance_types() -> impl Iterator<Item = &'static str> {
    INSTANCE_TYPES
        .lines()
        .filter_map(|line| line.split(',').next())
        .filter(|name| lookup(name).is_some())
}

fn lookup(instance_type: &str) -> Option<(u32, &'static Model)> {
    let row = INSTANCE_TYPES.lines().find(|line| line.split(',').next() == Some(instance_type))?;
    let columns: Vec<&str> = row.split(',').collect();
    let (count, name, memory) = (columns.get(1)?, columns.get(2)?, columns.get(3)?);
    let count = count.parse().ok().filter(|count| *count > 0)?;
    let memory: Option<u64> = memory.parse().ok();
    let model = MODELS
        .iter()
        .find(|model| model.ec2.0 == *name && (model.ec2.1.is_none() || model.ec2.1 == memory))?;
    Some((count, model))
}

fn gpu(model: &Model, index: u32, count: u32, seed: &str) -> Gpu {
    let has_hbm = model.nvlinks > 0;
    let switched = has_hbm && count == 8;
    let serial = hash(&format!("serial/{seed}/{}/{index}", model.name)) % 1_000_000_000;
    Gpu {
        index,
        uuid: uuid(&format!("{seed}/{}/{index}", model.name)),
        name: model.name.into(),
        serial: format!("165{serial:010}"),
        pci: pci_address(index, count, switched),
        pci_device_id: (model.pci_device << 16) | 0x10de,
        minor: index,
        architecture: model.architecture,
        compute_capability: model.compute_capability,
        memory_mib: model.memory_mib,
        memory_reserved_mib: model.memory_mib / 150,
        memory_used_mib: 0,
        temperature_c: 30 + index % 3,
        memory_temperature_c: has_hbm.then_some(38 + index % 3),
        power_mw: model.power_watts.0 * 1000,
        power_limit_mw: model.power_watts.1 * 1000,
        energy_mj: 0,
        sm_clock_mhz: model.sm_clock,
        memory_clock_mhz: model.memory_clock,
        utilization: Utilization::default(),
        pcie: Pcie {
            generation: (model.pcie_generation, model.pcie_generation),
            width: (16, 16),
            replays: 0,
        },
        ecc: Some(Ecc { enabled: true, ..Ecc::default() }),
        remapped_rows: (model.architecture >= AMPERE).then(RemappedRows::default),
        persistence: true,
        mig: has_hbm.then_some(false),
        clock_event_reasons: 1,
        recovery_action: Some(0),
        nvlink: has_hbm.then_some(Nvlink { links: model.nvlinks, down: 0, kib_per_second: (0, 0) }),
        fabric: (switched && model.architecture >= HOPPER).then_some(Fabric {
            state: 3,
            status: 0,
            clique_id: 0,
            health_mask: 0xaa,
            health_summary: 1,
        }),
        module_id: switched.then_some(index + 1),
        fault: None,
    }
}

fn pci_address(index: u32, count: u32, switched: bool) -> String {
    match EIGHT_SWITCHED.get(index as usize) {
        Some(bus) if switched => format!("0000:{bus:02x}:00.0"),
        // The last slots of bus 0, filled downwards: one GPU is 1e, eight are 17 to 1e.
        _ => format!("0000:00:{:02x}.0", 0x1f - count + index),
    }
}

fn uuid(seed: &str) -> String {
    let (high, low) = (hash(&format!("high/{seed}")), hash(&format!("low/{seed}")));
    format!(
        "GPU-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

/// FNV-1a with a last mix: stable between builds, which `DefaultHasher` does not promise.
fn hash(text: &str) -> u64 {
    let mixed = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn types_have_the_gpus_that_ec2_says() {
        for (instance_type, count, name) in [
            ("g4dn.xlarge", 1, "Tesla T4"),
            ("g4dn.12xlarge", 4, "Tesla T4"),
            ("g5.48xlarge", 8, "NVIDIA A10G"),
            ("g6.xlarge", 1, "NVIDIA L4"),
            ("g6e.12xlarge", 4, "NVIDIA L40S"),
            ("p4d.24xlarge", 8, "NVIDIA A100-SXM4-40GB"),
            ("p4de.24xlarge", 8, "NVIDIA A100-SXM4-80GB"),
            ("p5.48xlarge", 8, "NVIDIA H100 80GB HBM3"),
            ("p5.4xlarge", 1, "NVIDIA H100 80GB HBM3"),
            ("p5en.48xlarge", 8, "NVIDIA H200"),
            ("p6-b200.48xlarge", 8, "NVIDIA B200"),
        ] {
            let state = for_instance_type(instance_type).unwrap();
            assert_eq!(state.gpus.len(), count, "{instance_type}");
            assert!(state.gpus.iter().all(|gpu| gpu.name == name), "{instance_type}");
        }
        assert_eq!(for_instance_type("m7i.large"), None);
        assert_eq!(for_instance_type("g6f.large"), None, "a fraction of a GPU is none of ours");
    }

    #[test]
    fn identities_are_unique_and_stable() {
        for instance_type in instance_types() {
            let state = for_instance(instance_type, "i-1").unwrap();
            assert_eq!(Some(&state), for_instance(instance_type, "i-1").as_ref());
            let uuids: BTreeSet<_> = state.gpus.iter().map(|gpu| &gpu.uuid).collect();
            let addresses: BTreeSet<_> = state.gpus.iter().map(|gpu| &gpu.pci).collect();
            assert_eq!((uuids.len(), addresses.len()), (state.gpus.len(), state.gpus.len()));
            assert!(state.gpus.iter().all(|gpu| gpu.uuid.len() == 40));
            let other = for_instance(instance_type, "i-2").unwrap();
            assert_ne!(state.gpus[0].uuid, other.gpus[0].uuid);
        }
    }

    #[test]
    fn the_eight_of_a_p5_are_where_a_p5_has_them() {
        let state = for_instance_type("p5.48xlarge").unwrap();
        assert_eq!(state.gpus[0].pci, "0000:53:00.0");
        assert_eq!(state.gpus[7].pci, "0000:ca:00.0");
        assert_eq!(for_instance_type("g5.xlarge").unwrap().gpus[0].pci, "0000:00:1e.0");
    }

    #[test]
    fn a_state_survives_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let state = for_instance_type("p5.48xlarge").unwrap();
        state.write(directory.path()).unwrap();
        assert_eq!(State::read(directory.path()).unwrap(), state);
    }
}
