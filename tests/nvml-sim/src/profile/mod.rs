//! The GPUs of an EC2 instance type, as a healthy driver shows them.
//!
//! How many GPUs of which model a type has comes from the table that the agent uses, so the two
//! cannot disagree; what a model looks like through NVML is in [`models`].

mod mig;
mod models;

use models::{HOPPER, MODELS, Model, TURING, VOLTA};

pub use mig::{is_mig_profile, mig_devices};

use crate::state::{
    Ecc, Efa, Fabric, Flavor, Gpu, Gsp, Machine, Nvlink, Pcie, RemappedRows, RetiredPages, Setup,
    State, Utilization,
};

const INSTANCE_TYPES: &str = include_str!("../../../../agent/src/gpu/ec2-gpu-instances.csv");

/// Driver of the simulated nodes: a version that EKS images of 2026 carry.
pub const DRIVER_VERSION: &str = "580.95.05";
const CUDA_VERSION: i32 = 13_000;

/// PCI buses of the eight GPUs behind the switches of the large types.
const EIGHT_SWITCHED: [u8; 8] = [0x53, 0x64, 0x75, 0x86, 0x97, 0xa8, 0xb9, 0xca];

/// Families whose GPUs the open kernel module does not know, or for which EKS's images do not take
/// it; there the GSP is off too.
const PROPRIETARY: [&str; 5] = ["g4dn", "g5", "g5g", "p3", "p3dn"];

/// A healthy node of an instance type; none for a type without whole GPUs of a known model.
#[must_use]
pub fn for_instance_type(instance_type: &str) -> Option<State> {
    for_instance(instance_type, "")
}

/// The same with UUIDs and serial numbers of its own: `seed` is the instance id.
#[must_use]
pub fn for_instance(instance_type: &str, seed: &str) -> Option<State> {
    let row = Row::of(instance_type)?;
    let proprietary = PROPRIETARY.contains(&row.family);
    let mut gpus: Vec<Gpu> = (0..row.count).map(|index| gpu(&row, index, seed)).collect();
    for gpu in &mut gpus {
        gpu.gsp = Gsp { enabled: !proprietary, version: None };
    }
    let switches = if row.is_switched() { row.model.nvswitches } else { 0 };
    Some(State {
        driver_version: row.model.driver.unwrap_or(DRIVER_VERSION).into(),
        module_version: None,
        module_loaded: true,
        module_flavor: if proprietary { Flavor::Proprietary } else { Flavor::Open },
        machine: row.machine,
        setup: Setup::default(),
        cuda_version: CUDA_VERSION,
        nvswitches: (0..switches).map(|index| format!("0000:{:02x}:00.0", 0xd1 + index)).collect(),
        efa: efa(&row, &gpus),
        flat_pci: false,
        without_cuda: false,
        gpus,
        events: Vec::new(),
        hidden_symbols: Vec::new(),
        faults: crate::state::Faults::default(),
    })
}

/// Every instance type that [`for_instance_type`] knows.
pub fn instance_types() -> impl Iterator<Item = &'static str> {
    INSTANCE_TYPES
        .lines()
        .filter_map(|line| line.split(',').next())
        .filter(|name| Row::of(name).is_some())
}

/// A row of the table, with its model.
struct Row {
    family: &'static str,
    count: u32,
    model: &'static Model,
    efa: u32,
    machine: Machine,
}

impl Row {
    fn of(instance_type: &str) -> Option<Self> {
        let line =
            INSTANCE_TYPES.lines().find(|line| line.split(',').next() == Some(instance_type))?;
        let columns: Vec<&'static str> = line.split(',').collect();
        let [name, count, model, memory, efa, machine, ..] = columns.as_slice() else {
            return None;
        };
        let family = name.split_once('.')?.0;
        let count = count.parse().ok().filter(|count| *count > 0)?;
        let memory: Option<u64> = memory.parse().ok();
        let model = MODELS.iter().find(|known| {
            let named = known.ec2.0 == *model || (model.is_empty() && known.family == Some(family));
            named && (memory.is_none() || known.ec2.1.is_none() || known.ec2.1 == memory)
        })?;
        Some(Self {
            family,
            count,
            model,
            efa: efa.parse().unwrap_or_default(),
            // Grace, where EC2's answer does not say.
            machine: if *machine == "arm64" || family.starts_with("p6e-") {
                Machine::Arm
            } else {
                Machine::X86
            },
        })
    }

    /// Whether the GPUs sit on a baseboard with NVSwitches.
    const fn is_switched(&self) -> bool {
        self.count == 8
            && (self.model.nvswitches > 0
                || self.model.nvlinks > 0 && self.model.architecture >= HOPPER)
    }
}

fn gpu(row: &Row, index: u32, seed: &str) -> Gpu {
    let Row { model, count, .. } = *row;
    let has_hbm = model.has_hbm;
    let switched = row.is_switched();
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
            aer: Default::default(),
        },
        ecc: Some(Ecc { enabled: true, ..Ecc::default() }),
        remapped_rows: (model.architecture > TURING).then(RemappedRows::default),
        retired_pages: (model.architecture <= TURING).then(RetiredPages::default),
        persistence: true,
        gsp: Gsp::default(),
        processes: Vec::new(),
        mig: model.mig.then_some(false),
        mig_devices: Vec::new(),
        clock_event_reasons: 1,
        violations_ns: Default::default(),
        usage: None,
        recovery_action: (model.architecture > VOLTA).then_some(0),
        nvlink: (model.nvlinks > 0).then(|| Nvlink {
            links: model.nvlinks,
            down: 0,
            kib_per_second: (0, 0),
            errors: Default::default(),
        }),
        fabric: (switched && model.architecture >= HOPPER).then(registered),
        module_id: switched.then_some(index + 1),
        off_bus: false,
        call_codes: Default::default(),
        fault: None,
    }
}

/// A fabric that a GPU is registered with, and that is well.
fn registered() -> Fabric {
    Fabric {
        state: 3,
        status: 0,
        cluster_uuid: String::new(),
        clique_id: 0,
        health_mask: 0xaa,
        health_summary: 1,
    }
}

fn pci_address(index: u32, count: u32, switched: bool) -> String {
    match EIGHT_SWITCHED.get(index as usize) {
        Some(bus) if switched => format!("0000:{bus:02x}:00.0"),
        // The last slots of bus 0, filled downwards: one GPU is 1e, eight are 17 to 1e.
        _ => format!("0000:00:{:02x}.0", 0x1f - count + index),
    }
}

/// The EFA devices: in front of each GPU as many as come to it, else on bus 0.
fn efa(row: &Row, gpus: &[Gpu]) -> Vec<Efa> {
    let device = |(bus, slot): (u32, u32)| Efa {
        name: format!("rdmap{bus}s{slot}"),
        pci: format!("0000:{bus:02x}:{slot:02x}.0"),
        up: true,
        apart: false,
        counters: Default::default(),
    };
    if !row.is_switched() {
        return (0..row.efa).map(|index| device((0, 6 + index))).collect();
    }
    let each = row.efa.div_ceil(row.count);
    let places = EIGHT_SWITCHED.iter().take(gpus.len()).flat_map(|bus| {
        let bus = u32::from(*bus);
        (bus - each..bus).map(|bus| (bus, 0))
    });
    // Fewer devices than GPUs: every so many GPUs share one.
    let step = (row.count / row.efa.max(1)).max(1) as usize;
    places.step_by(step).take(row.efa as usize).map(device).collect()
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
            ("p6-b300.48xlarge", 8, "NVIDIA B300 SXM6 AC"),
            ("p6e-gb200.36xlarge", 4, "NVIDIA GB200"),
            ("p3.16xlarge", 8, "Tesla V100-SXM2-16GB"),
            ("p3dn.24xlarge", 8, "Tesla V100-SXM2-32GB"),
            ("g5g.16xlarge", 2, "NVIDIA T4G"),
            ("g7e.48xlarge", 8, "NVIDIA RTX PRO 6000 Blackwell Server Edition"),
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
            let mut functions: Vec<_> = state.efa.iter().map(|efa| &efa.pci).collect();
            functions.extend(addresses);
            functions.extend(&state.nvswitches);
            let distinct: BTreeSet<_> = functions.iter().collect();
            assert_eq!(distinct.len(), functions.len(), "{instance_type}: {functions:?}");
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
    fn the_node_around_the_gpus() {
        for (instance_type, efa, switches) in [
            ("p5.48xlarge", 32, 4),
            ("p5en.48xlarge", 16, 4),
            ("p4d.24xlarge", 4, 6),
            ("p6-b200.48xlarge", 8, 0),
            ("g6e.48xlarge", 4, 0),
            ("g5.xlarge", 0, 0),
        ] {
            let state = for_instance_type(instance_type).unwrap();
            let found = (state.efa.len(), state.nvswitches.len());
            assert_eq!(found, (efa, switches), "{instance_type}");
        }
        let old = for_instance_type("g4dn.xlarge").unwrap();
        assert_eq!((old.module_flavor, old.gpus[0].gsp.enabled), (Flavor::Proprietary, false));
        assert_eq!(for_instance_type("g5g.xlarge").unwrap().machine, Machine::Arm);
        assert_eq!(for_instance_type("p5.48xlarge").unwrap().efa[0].name, "rdmap79s0");
    }

    #[test]
    fn a_state_survives_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let state = for_instance_type("p5.48xlarge").unwrap();
        state.write(directory.path()).unwrap();
        assert_eq!(State::read(directory.path()).unwrap(), state);
    }
}
