//! Each check on facts of an eight-GPU node that is whole but for one thing.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::gpu::canary::{Canary, Computed, Progress};
use crate::gpu::efa::Efa;
use crate::gpu::module::Module;
use crate::gpu::pci::{EfaFunction, PciGpu};
use crate::gpu::probe::{NvmlFacts, Outcome};
use crate::gpu::sample::{Driver, Ecc, Fabric, Nvlinks, Readings, RemappedRows, RemapperBanks};
use crate::host::systemd::UnitState;
use crate::phases::drivers::Services;

fn fabric(state: u32, mask: u32) -> Option<Fabric> {
    Some(Fabric { state, error: None, health_mask: mask })
}

fn gpu(index: u32) -> GpuSample {
    let readings = Readings {
        memory_temperature: Some(40),
        remapped_rows: Some(RemappedRows::default()),
        remapper_banks: Some(RemapperBanks { max: 640, ..RemapperBanks::default() }),
        ecc_mode: Some(true),
        ecc: Some(Ecc { volatile_uncorrected: Some(0), ..Ecc::default() }),
        recovery_action: Some(0),
        persistence: Some(true),
        mig: Some(false),
        nvlinks: Some(Nvlinks { up: 18, down: Vec::new() }),
        fabric: fabric(3, 0xaa),
        ..Readings::default()
    };
    let pci = address(index);
    GpuSample { index, pci, name: "NVIDIA H100 80GB HBM3".into(), readings, ..GpuSample::default() }
}

fn address(index: u32) -> String {
    format!("0000:{:02x}:00.0", 0x50 + index)
}

fn unit(load: &str, active: &str) -> Option<UnitState> {
    Some(UnitState { load: load.into(), active: active.into(), ..UnitState::default() })
}

fn healthy() -> DriverFacts {
    let on_bus = |index| PciGpu {
        address: address(index),
        device: "0x2330".into(),
        width: Some((16, 16)),
        root_port: Some("0000:50:01.0".into()),
        ..PciGpu::default()
    };
    DriverFacts {
        pci: Some((0..8).map(on_bus).collect()),
        nvswitches: 4,
        module: Module { version: Some("580.95.05".into()), peermem: true, ..Module::default() },
        nvml: NvmlFacts {
            driver: Some(Driver::default()),
            gpus: (0..8).map(gpu).collect(),
            outcome: Outcome::Complete,
        },
        services: Services {
            fabric_manager: unit("loaded", "active"),
            persistenced: unit("loaded", "active"),
        },
        ..DriverFacts::default()
    }
}

fn with_gpu(change: impl FnOnce(&mut Readings)) -> DriverFacts {
    let mut facts = healthy();
    change(&mut facts.nvml.gpus[3].readings);
    facts
}

fn with(change: impl FnOnce(&mut DriverFacts)) -> DriverFacts {
    let mut facts = healthy();
    change(&mut facts);
    facts
}

/// All GPUs but the fourth have computed; that has said this, or nothing at all.
fn sang(error: Option<&str>) -> Canary {
    let of = |index: u32| error.filter(|_| index == 3).map(str::to_owned);
    let is_there = |index: &u32| *index != 3 || error.is_some();
    let computed = |index| Computed { pci: address(index), error: of(index) };
    let gpus = (0..8).filter(is_there).map(computed).collect();
    Canary::Ended(Progress { gpus, ..Progress::default() })
}

/// The same, where the pool asks for a driver that the healthy node has.
fn asked() -> Expected {
    Expected { min_driver: Some("580.95".into()), ..p5() }
}

fn p5() -> Expected {
    Expected { instance_type: "p5.48xlarge".into(), peermem: true, ..Expected::default() }
}

/// One thing that is wrong each, and the check that sees it.
fn broken() -> Vec<(DriverFacts, Check)> {
    vec![
        (with(|f| f.pci.as_mut().unwrap()[3].width = Some((8, 16))), Check::PcieWidth),
        (with_gpu(|r| r.persistence = Some(false)), Check::Persistence),
        (with_gpu(|r| r.ecc_mode = Some(false)), Check::EccMode),
        (
            with_gpu(|r| r.ecc.as_mut().unwrap().volatile_uncorrected = Some(2)),
            Check::EccUncorrected,
        ),
        (with_gpu(|r| r.sram_exceeded = Some(true)), Check::SramThreshold),
        (with(|f| f.module.version = Some("580.82.07".into())), Check::DriverPolicy),
        (with(|f| f.canary = sang(Some("`cuMemAlloc_v2` gave 2"))), Check::Canary),
        (with(|f| f.canary = sang(None)), Check::Canary),
        (with_gpu(|r| r.remapped_rows.as_mut().unwrap().failed = true), Check::RemapFailed),
        (with_gpu(|r| r.remapped_rows.as_mut().unwrap().pending = true), Check::RemapPending),
        (with_gpu(|r| r.remapper_banks.as_mut().unwrap().low = 1), Check::RemapSpares),
        (with_gpu(|r| r.remapper_banks.as_mut().unwrap().none = 1), Check::RemapSpares),
        (with_gpu(|r| r.retired_pages_pending = Some(true)), Check::RetiredPages),
        (with_gpu(|r| r.recovery_action = Some(2)), Check::RecoveryAction),
        (with(|f| f.services.fabric_manager = unit("loaded", "failed")), Check::FabricManager),
        (with(|f| f.services.fabric_manager = unit("loaded", "inactive")), Check::FabricManager),
        (with_gpu(|r| r.fabric = fabric(1, 0)), Check::FabricState),
        (with_gpu(|r| r.fabric.as_mut().unwrap().error = Some("x".into())), Check::FabricState),
        (with_gpu(|r| r.fabric = fabric(3, 0xa9)), Check::FabricHealth),
        (with_gpu(|r| r.fabric = fabric(3, 0x5aa)), Check::FabricHealth),
        (with_gpu(|r| r.nvlinks = Some(Nvlinks { up: 16, down: vec![3, 9] })), Check::NvlinkActive),
        (with_gpu(|r| (r.mig, r.mig_devices) = (Some(true), Some(0))), Check::MigLayout),
        (with(|f| f.efa.functions = vec![EfaFunction::default()]), Check::EfaCount),
        (with(|f| f.module.peermem = false), Check::Peermem),
        (with(|f| f.stale_cdi = Some("`/etc/cdi/x` names `/y`".into())), Check::Cdi),
        (
            with(|f| {
                let port = Some("0000:90:01.0".into());
                let efa = EfaFunction { root_port: port, ..EfaFunction::default() };
                f.efa = Efa {
                    functions: vec![efa],
                    devices: vec!["rdmap79s0".into()],
                    ..Efa::default()
                };
                f.module.version = Some("595.58.03".into());
            }),
            Check::EfaTopology,
        ),
    ]
}

#[test]
fn a_healthy_node_has_nothing() {
    assert_eq!(health(&healthy(), &asked()), []);
}

#[test]
fn a_canary_that_is_not_heard_is_the_nodes() {
    let hung = |asking: &str| {
        let progress = Progress { asking: asking.into(), ..Progress::default() };
        Canary::Hung { progress, after: Duration::from_secs(60) }
    };
    let error = Some("`cuInit` gave 802 (CUDA_ERROR_SYSTEM_NOT_READY)".to_owned());
    for (canary, says) in [
        (Canary::NotRun("no unit".into()), "could not be run: no unit"),
        (hung("the GPU at 0000:53:00.0"), "no answer to the GPU at 0000:53:00.0 within 60 s"),
        (hung(""), "no answer to its start within 60 s"),
        (Canary::Ended(Progress { error, ..Progress::default() }), "does not come up: `cuInit`"),
    ] {
        let found = health(&with(|f| f.canary = canary), &p5());
        let [found] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((found.reason, found.gpu), (Reason::CudaCanaryFailed, None));
        assert!(found.what.contains(says), "{found:?}");
    }
}

#[test]
fn a_driver_is_as_new_as_the_pool_asks() {
    for (version, wanted, is_old) in [
        ("580.95.05", "580", false),
        ("580.95.05", "580.95.05", false),
        ("580.95.05", "580.100", true),
        ("580.95.05", "595", true),
        ("595.58.03", "580.95.05", false),
        ("580.95.05", "newest", false),
    ] {
        let facts = with(|f| f.module.version = Some(version.into()));
        let expected = Expected { min_driver: Some(wanted.into()), ..p5() };
        let found = health(&facts, &expected);
        assert_eq!(found.len(), usize::from(is_old), "{version} for {wanted}: {found:?}");
    }
}

#[test]
fn each_thing_is_seen_by_its_check_alone_and_named_by_its_reason() {
    for (facts, check) in broken() {
        let found = health(&facts, &asked());
        let checks: Vec<Check> = found.iter().map(|found| found.check).collect();
        assert_eq!(checks, [check], "{found:?}");
        assert!(check.entry().reasons.contains(&found[0].reason), "{found:?}");
        let of_node = [
            Check::FabricManager,
            Check::EfaCount,
            Check::Cdi,
            Check::EfaTopology,
            Check::DriverPolicy,
            Check::Peermem,
        ];
        let expected = (!of_node.contains(&check)).then_some(3);
        assert_eq!(found[0].gpu, expected, "{found:?}");
        assert!(!found[0].what.ends_with('.') && found[0].what.len() > 10, "{found:?}");
    }
}

#[test]
fn every_check_that_has_a_reason_is_tried_here_or_by_its_phase() {
    use contract::Phase;
    use contract::reason::Owner;
    let tried: BTreeSet<Check> = broken().into_iter().map(|(_, check)| check).collect();
    // The driver's coming up and the counts: the phase's own tests. The kernel log's: the watch's.
    let of_phase = [
        Check::PciPresent,
        Check::PciCount,
        Check::PciDead,
        Check::ModuleLoaded,
        Check::LibraryPresent,
        Check::VersionMatch,
        Check::DriverInit,
        Check::DriverAge,
        Check::DriverHang,
        Check::NvmlCount,
        Check::NvmlHandle,
        Check::Model,
        Check::Toolkit,
    ];
    let of_log = [Check::Xid, Check::FabricErrors];
    for check in Check::ALL {
        let of_drivers =
            check.entry().reasons.iter().any(|r| r.entry().owner == Owner::Phase(Phase::Drivers));
        let is_tried = tried.contains(check) || of_phase.contains(check) || of_log.contains(check);
        assert!(is_tried || !of_drivers, "{} has a reason and no test", check.entry().id);
    }
}

#[test]
fn what_nobody_says_is_no_fault() {
    let mut facts = healthy();
    for gpu in &mut facts.nvml.gpus {
        gpu.readings = Readings::default();
    }
    facts.services = Services::default();
    facts.pci = None;
    assert_eq!(health(&facts, &p5()), []);
}

#[test]
fn a_lone_gpu_has_no_fabric_to_be_in() {
    let mut facts = with_gpu(|r| {
        r.fabric = fabric(2, 0x55);
        r.nvlinks = Some(Nvlinks { up: 0, down: (0..18).collect() });
    });
    facts.nvml.gpus.retain(|gpu| gpu.index == 3);
    facts.pci.as_mut().unwrap().truncate(1);
    facts.nvswitches = 0;
    facts.services.fabric_manager = unit("loaded", "inactive");
    let p5_4xlarge = Expected { instance_type: "p5.4xlarge".into(), ..Expected::default() };
    assert_eq!(health(&facts, &p5_4xlarge), []);
}

#[test]
fn a_fabric_manager_is_wanted_where_there_is_a_fabric() {
    let dead = |facts: &mut DriverFacts| {
        facts.services.fabric_manager = unit("not-found", "inactive");
    };
    // Something else has taken the GPUs in, as in a container.
    assert_eq!(health(&with(dead), &p5()), []);
    // NVSwitches on the bus, and GPUs that know of no fabric: Ampere.
    let mut ampere = with(dead);
    ampere.nvml.gpus.iter_mut().for_each(|gpu| gpu.readings.fabric = None);
    let found = health(&ampere, &p5());
    assert_eq!(found[0].reason, Reason::FabricManagerNotRunning);
    assert!(!found[0].may_heal);
    ampere.nvswitches = 0;
    assert_eq!(health(&ampere, &p5()), []);
    let starting = with(|f| f.services.fabric_manager = unit("loaded", "activating"));
    assert!(health(&starting, &p5())[0].may_heal, "it may still come");
}

#[test]
fn the_health_mask_is_read_field_by_field() {
    for (mask, says) in [
        (0xaa, None),
        (0x00, None),
        (0x80, None),
        (0x1aa, None),
        (0x01, Some("degraded bandwidth")),
        (0x54, Some("a route being recovered and an unhealthy route and a recovery after")),
        (0x4aa, Some("no partition")),
    ] {
        let found = health(&with_gpu(|r| r.fabric = fabric(3, mask)), &p5());
        match says {
            None => assert_eq!(found, [], "{mask:#x}"),
            Some(text) => assert!(found[0].what.contains(text), "{mask:#x}: {found:?}"),
        }
    }
}

#[test]
fn ecc_is_asked_of_hbm_alone() {
    let without = with_gpu(|r| {
        r.memory_temperature = None;
        r.ecc_mode = Some(false);
    });
    assert_eq!(health(&without, &p5()), []);
}

#[test]
fn mig_is_compared_with_the_configuration() {
    let wanted = |count| Expected { mig_devices: Some(count), ..p5() };
    let divided = |parts| {
        let mut facts = healthy();
        for gpu in &mut facts.nvml.gpus {
            (gpu.readings.mig, gpu.readings.mig_devices) = (Some(true), Some(parts));
        }
        facts
    };
    for (facts, expected, found) in [
        (divided(7), p5(), 0),
        (divided(7), wanted(7), 0),
        (divided(7), wanted(0), 8),
        (divided(6), wanted(7), 8),
        (healthy(), wanted(7), 8),
        (healthy(), wanted(0), 0),
    ] {
        assert_eq!(health(&facts, &expected).len(), found);
    }
}

#[test]
fn efa_by_the_configuration_and_by_the_bus() {
    let adapter = |iommu| EfaFunction {
        address: "0000:4f:00.0".into(),
        has_iommu_group: iommu,
        root_port: Some("0000:90:01.0".into()),
    };
    let two = |devices: &[&str]| {
        let devices = devices.iter().map(|name| (*name).to_owned()).collect();
        with(|f| {
            f.efa = Efa { functions: vec![adapter(true), adapter(true)], devices, ..Efa::default() }
        })
    };
    let wanted = |count| Expected { efa_devices: Some(count), ..p5() };
    for (facts, expected, short) in [
        (two(&["a", "b"]), p5(), false),
        (two(&["a"]), p5(), true),
        (two(&["a", "b"]), wanted(4), true),
        (two(&["a"]), wanted(1), false),
        (healthy(), wanted(1), true),
    ] {
        assert_eq!(health(&facts, &expected).len(), usize::from(short), "{facts:?}");
    }
    // An IOMMU group will do for the driver.
    let newer = |facts: &mut DriverFacts| facts.module.version = Some("595.58.03".into());
    let mut facts = two(&["a", "b"]);
    newer(&mut facts);
    assert_eq!(health(&facts, &p5()), []);
    // A common root port will do too, and a tree that shows none says nothing.
    for port in [Some("0000:50:01.0".to_owned()), None] {
        let mut facts = two(&["a", "b"]);
        newer(&mut facts);
        for efa in &mut facts.efa.functions {
            (efa.has_iommu_group, efa.root_port) = (false, port.clone());
        }
        assert_eq!(health(&facts, &p5()), [], "{port:?}");
    }
}

#[test]
fn a_fatal_xid_of_this_boot_counts_where_the_driver_says_nothing_itself() {
    let mut facts = healthy();
    let pci = facts.nvml.gpus[2].pci.clone();
    let xid = |code, switch| crate::gpu::xid::Record {
        pci: pci.clone(),
        code,
        switch,
        ..crate::gpu::xid::Record::default()
    };
    facts.xids = vec![xid(95, false), xid(31, false), xid(20034, true)];
    for gpu in &mut facts.nvml.gpus {
        gpu.readings.recovery_action = Some(0);
    }
    assert_eq!(health(&facts, &p5()), []);
    facts.nvml.gpus[2].readings.recovery_action = None;
    let found = health(&facts, &p5());
    let [found] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((found.reason, found.gpu), (Reason::FatalXid, Some(2)));
    assert_eq!(found.what, "has logged XID 95 (Uncontained memory error) in this boot");
}
