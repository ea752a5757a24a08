//! Facts of an eight-GPU node, whole and broken in every way that the phase can name.

use super::*;
use crate::gpu::expected::Kind;
use crate::gpu::kernel::Kernels;
use crate::gpu::module::Module;
use crate::gpu::pci::PciGpu;
use crate::gpu::probe::{NvmlFacts, Outcome};
use crate::gpu::sample::{CallError, Driver, Fabric, Failure, Memory, RemappedRows};
use crate::host::systemd::UnitState;

const ADDRESSES: [&str; 8] = ["53", "64", "75", "86", "97", "a8", "b9", "ca"];
const LONG_UP: Duration = Duration::from_secs(600);

fn address(index: usize) -> String {
    format!("0000:{}:00.0", ADDRESSES[index])
}

fn gpu(index: u32) -> GpuSample {
    let mut gpu = GpuSample {
        index,
        uuid: format!("GPU-{index}"),
        pci: address(index as usize),
        name: "NVIDIA H100 80GB HBM3".into(),
        ..GpuSample::default()
    };
    gpu.readings.memory = Some(Memory { total: 81_559 << 20, ..Memory::default() });
    gpu
}

fn healthy() -> DriverFacts {
    DriverFacts {
        pci: Some(
            (0..8)
                .map(|i| PciGpu {
                    address: address(i),
                    device: "0x2330".into(),
                    ..PciGpu::default()
                })
                .collect(),
        ),
        module: Module {
            version: Some("580.95.05".into()),
            source: "/proc/driver/nvidia/version",
            kind: Some(Kind::Open),
            chosen: None,
            device_nodes: (0..8).collect(),
            driven: (0..8).map(address).collect(),
            peermem: false,
        },
        library_version: Some("580.95.05".into()),
        nvml: NvmlFacts {
            driver: Some(Driver {
                library: "/usr/lib64/libnvidia-ml.so.1".into(),
                version: "580.95.05".into(),
                cuda: "13.0".into(),
                count: 8,
            }),
            gpus: (0..8).map(gpu).collect(),
            outcome: Outcome::Complete,
        },
        up: LONG_UP,
        ..DriverFacts::default()
    }
}

fn p5() -> Expected {
    Expected { instance_type: "p5.48xlarge".into(), ..Expected::default() }
}

fn unit(active: &str) -> Vec<(&'static str, UnitState)> {
    let state = UnitState { load: "loaded".into(), active: active.into(), ..UnitState::default() };
    vec![("nvidia-setup.service", state)]
}

fn unloaded() -> DriverFacts {
    let mut facts = healthy();
    facts.module = Module::default();
    facts.nvml = NvmlFacts::none(Outcome::NotAsked("the kernel module is not loaded"));
    facts
}

fn init_failed(code: u32) -> DriverFacts {
    let mut facts = healthy();
    let error = CallError { call: "nvmlInit".into(), code, text: "some text".into() };
    let library = "/usr/lib64/libnvidia-ml.so.1".into();
    facts.nvml = NvmlFacts::none(Outcome::Failed(Failure::Init { library, error }));
    facts
}

fn hung(after: u64) -> DriverFacts {
    let mut facts = healthy();
    facts.nvml.gpus.truncate(3);
    facts.nvml.outcome =
        Outcome::Hung { asking: "GPU 3".into(), after: Duration::from_secs(after) };
    facts
}

fn ill(indices: &[u32], code: u32) -> DriverFacts {
    let mut facts = healthy();
    for index in indices {
        let gpu = &mut facts.nvml.gpus[*index as usize];
        let call = "nvmlDeviceGetHandleByIndex_v2".into();
        *gpu = GpuSample { index: *index, ..GpuSample::default() };
        gpu.error = Some(CallError { call, code, text: "some text".into() });
    }
    facts
}

fn dead(mut facts: DriverFacts) -> DriverFacts {
    facts.pci.as_mut().unwrap()[3].is_dead = true;
    facts
}

fn without_on_the_bus(missing: usize) -> DriverFacts {
    let mut facts = healthy();
    facts.pci.as_mut().unwrap().remove(missing);
    facts.module.device_nodes.remove(missing);
    facts.module.driven.remove(missing);
    facts.nvml.gpus.remove(missing);
    facts.nvml.driver.as_mut().unwrap().count = 7;
    facts
}

fn changed(change: impl FnOnce(&mut DriverFacts)) -> DriverFacts {
    let mut facts = healthy();
    change(&mut facts);
    facts
}

/// `Pass`, or the kind of verdict with its first reason.
fn told(facts: &DriverFacts, expected: &Expected) -> String {
    match verdict(facts, expected) {
        Verdict::Pass => "Pass".into(),
        Verdict::Wait(finding) => format!("Wait {}", finding.reason),
        Verdict::Degraded(findings) => format!("Degraded {}", findings[0].reason),
        Verdict::Fail(findings) => format!("Fail {}", findings[0].reason),
    }
}

fn cause(facts: &DriverFacts) -> Finding {
    match verdict(facts, &p5()) {
        Verdict::Wait(finding) => *finding,
        Verdict::Degraded(mut findings) | Verdict::Fail(mut findings) => findings.swap_remove(0),
        Verdict::Pass => panic!("passed"),
    }
}

#[test]
fn every_state_of_the_driver_has_its_verdict() {
    let young = |mut facts: DriverFacts| {
        facts.up = Duration::from_secs(5);
        facts
    };
    let at_work = |mut facts: DriverFacts| {
        facts.units = unit("activating");
        facts
    };
    let broken = |mut facts: DriverFacts| {
        facts.units = unit("failed");
        facts.up = Duration::from_secs(5);
        facts
    };
    let missing = || {
        let failure = Failure::LibraryMissing { searched: vec!["/usr/lib64".into()] };
        changed(|facts| facts.nvml = NvmlFacts::none(Outcome::Failed(failure)))
    };
    let unloadable = || {
        let failure = Failure::LibraryUnloadable { library: "x".into(), error: "y".into() };
        changed(|facts| facts.nvml = NvmlFacts::none(Outcome::Failed(failure)))
    };
    let helper = || {
        let outcome = Outcome::HelperFailed("it ended with signal: 11".into());
        changed(|facts| facts.nvml = NvmlFacts::none(outcome))
    };
    for (what, facts, wanted) in [
        ("all is well", healthy(), "Pass"),
        ("just started, and all is well", young(healthy()), "Pass"),
        ("no module, long up", unloaded(), "Fail DriverNotLoaded"),
        ("no module yet", young(unloaded()), "Wait DriverNotLoaded"),
        ("no module, a unit is at work", at_work(unloaded()), "Wait DriverNotLoaded"),
        ("no module, its unit has failed", broken(unloaded()), "Fail DriverUnitFailed"),
        ("no library", missing(), "Fail DriverLibraryMissing"),
        ("no library yet", young(missing()), "Wait DriverLibraryMissing"),
        ("a library that does not load", unloadable(), "Fail DriverLibraryMissing"),
        ("versions differ", init_failed(18), "Fail DriverLibraryMismatch"),
        ("versions differ, soon after boot", young(init_failed(18)), "Fail DriverLibraryMismatch"),
        (
            "versions differ, being installed",
            at_work(init_failed(18)),
            "Wait DriverLibraryMismatch",
        ),
        ("NVML says not loaded", init_failed(9), "Fail DriverNotLoaded"),
        ("NVML does not initialise", init_failed(999), "Fail DriverInitFailed"),
        ("NVML does not initialise yet", young(init_failed(4)), "Wait DriverInitFailed"),
        ("a hang", hung(120), "Fail DriverHang"),
        ("no time to tell a hang", hung(2), "Wait DriverHang"),
        ("the helper crashes", helper(), "Fail DriverInitFailed"),
        (
            "another driver under a loaded library",
            changed(|facts| facts.module.version = Some("580.82.07".into())),
            "Fail DriverLibraryMismatch",
        ),
    ] {
        assert_eq!(told(&facts, &p5()), wanted, "{what}");
    }
}

#[test]
fn every_state_of_the_gpus_has_its_verdict() {
    let at_work = |mut facts: DriverFacts| {
        facts.units = unit("activating");
        facts
    };
    let no_node = || changed(|facts| facts.module.device_nodes.truncate(7));
    let bare = changed(|facts| {
        facts.pci = Some(Vec::new());
        facts.module = Module::default();
        facts.nvml = NvmlFacts::none(Outcome::NotAsked("the kernel module is not loaded"));
    });
    for (what, facts, wanted) in [
        ("an empty bus outranks the driver", bare, "Fail GpuAbsent"),
        ("one missing on the bus", without_on_the_bus(6), "Fail GpuCountShort"),
        ("no unit brings it back", at_work(without_on_the_bus(6)), "Fail GpuCountShort"),
        ("a device node missing", no_node(), "Fail GpuCountShort"),
        ("device nodes being made", at_work(no_node()), "Wait GpuCountShort"),
        ("one missing in NVML", changed(|f| f.nvml.gpus.truncate(7)), "Fail GpuCountShort"),
        ("one that NVML cannot open", ill(&[3], 999), "Fail GpuCountShort"),
        ("one lost", ill(&[3], 15), "Fail GpuLost"),
        ("all lost", ill(&[0, 1, 2, 3, 4, 5, 6, 7], 15), "Fail GpuLost"),
        ("one wants a reset", ill(&[0], 16), "Fail GpuResetRequired"),
        (
            "another model",
            changed(|f| f.nvml.gpus[1].name = "NVIDIA H200".into()),
            "Degraded GpuModelUnexpected",
        ),
        (
            "a name that cannot be read is no other model",
            changed(|f| f.nvml.gpus[1].name = String::new()),
            "Pass",
        ),
        (
            "half the memory",
            changed(|f| f.nvml.gpus[1].readings.memory.as_mut().unwrap().total = 40_000 << 20),
            "Degraded GpuModelUnexpected",
        ),
        ("the bus cannot be read", changed(|facts| facts.pci = None), "Pass"),
        ("one is gone and still listed", dead(healthy()), "Fail GpuLost"),
        ("the same while the driver hangs over it", dead(hung(120)), "Fail GpuLost"),
        (
            "a row waits for a reset",
            changed(|f| {
                let pending = RemappedRows { pending: true, ..RemappedRows::default() };
                f.nvml.gpus[1].readings.remapped_rows = Some(pending);
            }),
            "Fail RowRemapPending",
        ),
        (
            "the fabric is being set up",
            changed(|f| {
                let fabric = Fabric { state: 2, ..Fabric::default() };
                f.nvml.gpus.iter_mut().for_each(|gpu| gpu.readings.fabric = Some(fabric.clone()));
            }),
            "Wait FabricNotReady",
        ),
    ] {
        assert_eq!(told(&facts, &p5()), wanted, "{what}");
    }
}

#[test]
fn the_agent_config_and_unknown_types() {
    let of = |instance_type: &str| Expected {
        instance_type: instance_type.into(),
        ..Expected::default()
    };
    let configured = |count, model: &str| Expected {
        instance_type: "p9.metal".into(),
        gpus: Some(contract::agent_config::ExpectedGpus {
            count,
            model: Some(model.into()),
            memory_mib: None,
        }),
        ..Expected::default()
    };
    let bare = changed(|facts| {
        facts.pci = Some(Vec::new());
        facts.module = Module::default();
        facts.nvml = NvmlFacts::none(Outcome::NotAsked("the kernel module is not loaded"));
    });
    for (what, facts, expected, wanted) in [
        ("the config decides", healthy(), configured(8, "H100"), "Pass"),
        ("the config wants more", healthy(), configured(9, "H100"), "Fail GpuCountShort"),
        ("the config has fewer", healthy(), configured(4, "H100"), "Degraded GpuModelUnexpected"),
        ("another model", healthy(), configured(8, "H200"), "Degraded GpuModelUnexpected"),
        ("unknown, whole", healthy(), of("p9.metal"), "Degraded GpuCountUnknown"),
        ("unknown, bare", bare.clone(), of("p9.metal"), "Degraded GpuCountUnknown"),
        ("unknown, and one is lost", ill(&[3], 15), of("p9.metal"), "Fail GpuLost"),
        ("unknown, and no driver", unloaded(), of("p9.metal"), "Fail DriverNotLoaded"),
        ("a share of a GPU, and none", bare, of("g6f.large"), "Fail GpuAbsent"),
    ] {
        assert_eq!(told(&facts, &expected), wanted, "{what}");
    }
}

#[test]
fn summaries_have_the_numbers_and_the_layer() {
    for (facts, wanted) in [
        (
            without_on_the_bus(6),
            "7 of 8 GPUs: missing on the PCI bus (expected 8, PCI 7, device nodes 7, NVML 7)",
        ),
        (
            changed(|facts| facts.module.device_nodes.truncate(7)),
            "7 of 8 GPUs: missing among the device nodes /dev/nvidia<n> \
             (expected 8, PCI 8, device nodes 7, NVML 8)",
        ),
        (
            ill(&[3], 999),
            "7 of 8 GPUs: NVML cannot use GPU 3 at 0000:86:00.0 (nvmlDeviceGetHandleByIndex_v2 \
             gave 999 (some text)) (expected 8, PCI 8, device nodes 8, NVML 7)",
        ),
        (ill(&[3], 15), "7 of 8 GPUs work: GPU 3 at 0000:86:00.0 fallen off the bus"),
        (
            changed(|facts| {
                *facts = init_failed(18);
                facts.module.version = Some("580.82.07".into());
            }),
            "the kernel module is 580.82.07, the library is 580.95.05",
        ),
        (hung(120), "no answer to GPU 3 within 120 s"),
    ] {
        assert_eq!(cause(&facts).summary, wanted);
    }
}

#[test]
fn evidence_names_its_sources() {
    let mut facts = ill(&[3], 15);
    facts.units = unit("failed");
    facts.unit_log = vec!["nvidia-setup: modprobe failed".into()];
    let evidence = cause(&facts).evidence;
    for wanted in [
        "NVML: GPU 3 at 0000:86:00.0 (nvmlDeviceGetHandleByIndex_v2 gave 15 (some text))",
        "systemctl show nvidia-setup.service: failed (), ",
        "/sys/bus/pci/devices: 8 functions of vendor 0x10de",
        "/proc/driver/nvidia/version: 580.95.05",
        "/usr/lib64/libnvidia-ml.so.1: driver 580.95.05, counts 8, 7 work",
        "nvidia-setup: modprobe failed",
    ] {
        assert!(evidence.iter().any(|line| line == wanted), "{wanted}\n{evidence:#?}");
    }
}

#[test]
fn the_report_counts_each_layer() {
    let report = super::report(&ill(&[3], 15), &p5());
    assert_eq!(report.expected, Some(8));
    assert_eq!((report.pci, report.device_nodes, report.nvml), (Some(8), Some(8), Some(7)));
    assert_eq!(report.driver.as_deref(), Some("580.95.05"));
    assert_eq!(report.items.len(), 8);
    assert_eq!(report.items[3].pci, "0000:86:00.0");
    assert!(report.items[3].error.as_ref().unwrap().contains("gave 15"));
    assert_eq!(report.items[4].error, None);

    let report = super::report(&unloaded(), &p5());
    assert_eq!((report.pci, report.nvml, report.driver), (Some(8), None, None));
}

#[test]
fn a_module_for_other_kernels_explains_the_failed_unit() {
    let mut facts = unloaded();
    facts.units = unit("failed");
    let running = Some("6.12.53".to_owned());
    facts.kernels = Kernels { running, built_for: vec!["6.12.40".into()] };
    let Verdict::Fail(found) = verdict(&facts, &p5()) else { panic!() };
    assert_eq!(found[0].reason, Reason::DriverKernelMismatch);
    assert!(found[0].summary.contains("6.12.53") && found[0].summary.contains("6.12.40"));
    facts.units = unit("activating");
    assert!(matches!(verdict(&facts, &p5()), Verdict::Wait(_)), "it may be built still");
}

#[test]
fn a_driver_that_does_not_know_the_gpus_is_too_old() {
    let g7 = Expected { instance_type: "g7.48xlarge".into(), ..Expected::default() };
    let reason = |facts: &DriverFacts, expected: &Expected| match verdict(facts, expected) {
        Verdict::Fail(found) => found[0].reason.to_string(),
        other => format!("{other:?}"),
    };
    let mut none = healthy();
    none.nvml.gpus.clear();
    assert_eq!(reason(&none, &g7), "DriverTooOld");
    assert_eq!(reason(&init_failed(999), &g7), "DriverTooOld");
    assert_eq!(reason(&init_failed(18), &g7), "DriverLibraryMismatch");
    assert_eq!(reason(&none, &p5()), "GpuCountShort", "580 knows an H100");
    let working = verdict(&healthy(), &g7);
    assert!(!matches!(working, Verdict::Fail(_)), "GPUs that work are known: {working:?}");
}

#[test]
fn a_stale_cdi_specification_keeps_nobody_out() {
    let mut facts = healthy();
    facts.stale_cdi = Some("`/run/cdi/nvidia.yaml` names `/x`, which is not there".into());
    let Verdict::Degraded(found) = verdict(&facts, &p5()) else { panic!() };
    assert_eq!(found[0].reason, Reason::CdiStale);
}

#[test]
fn a_driver_of_another_kind_is_named() {
    let of = |instance_type: &str| Expected {
        instance_type: instance_type.into(),
        ..Expected::default()
    };
    let none = |kind, chosen| {
        changed(|facts| {
            facts.nvml.gpus.clear();
            (facts.module.kind, facts.module.chosen) = (kind, chosen);
        })
    };
    let (b200, g6f) = (of("p6-b200.48xlarge"), of("g6f.large"));
    for (what, facts, expected, wanted) in [
        ("closed", none(Some(Kind::Proprietary), None), &b200, "Fail DriverBranchMismatch"),
        ("open", none(Some(Kind::Open), None), &b200, "Fail GpuCountShort"),
        ("both will do", none(Some(Kind::Proprietary), None), &p5(), "Fail GpuCountShort"),
        ("no GRID", none(Some(Kind::Open), Some(Kind::Open)), &g6f, "Fail DriverBranchMismatch"),
        (
            "not loaded, and another was chosen",
            changed(|facts| {
                *facts = unloaded();
                facts.module.chosen = Some(Kind::Proprietary);
            }),
            &b200,
            "Fail DriverBranchMismatch",
        ),
    ] {
        assert_eq!(told(&facts, expected), wanted, "{what}");
    }
}

#[test]
fn many_gpus_with_one_trouble_are_one_cause() {
    let facts = changed(|facts| {
        for gpu in &mut facts.nvml.gpus {
            gpu.readings.recovery_action = Some(1);
        }
        facts.nvml.gpus[2].readings.persistence = Some(false);
    });
    let Verdict::Fail(found) = verdict(&facts, &p5()) else { panic!() };
    let reasons: Vec<_> = found.iter().map(|finding| finding.reason.to_string()).collect();
    assert_eq!(reasons, ["GpuResetRequired", "PersistenceModeOff"]);
    assert_eq!(found[1].summary, "GPU 2 at 0000:75:00.0 is not persistent");
    assert!(found[0].summary.ends_with("; and 5 more"), "{}", found[0].summary);
    assert!(found[0].evidence.iter().any(|line| line.starts_with("GPU 7 at 0000:ca:00.0")));

    let items = super::report(&facts, &p5()).items;
    assert_eq!(items[2].found.len(), 2);
    assert!(items[3].found[0].starts_with("GpuResetRequired: is told by its driver"));
}
