//! What the condition says, when it is written, and when its transition time moves.

use contract::join_report::PhaseReport;

use super::*;
use crate::gpu::module::Module;
use crate::gpu::pci::PciGpu;
use crate::gpu::probe::{NvmlFacts, Outcome};
use crate::gpu::sample::{CallError, Driver, GpuSample};
use crate::metrics::snapshot::{SeenGpu, Snapshot};
use crate::phases::drivers::{DriverFacts, Expected};

fn report(outcome: JoinOutcome, reasons: &[(Reason, Phase)]) -> JoinReport {
    let golden = include_str!("../../../../contract/golden/join_report.json");
    let mut report: JoinReport = serde_json::from_str(golden).unwrap();
    report.outcome = outcome;
    report.reasons =
        reasons.iter().map(|(reason, phase)| Finding::new(*reason, *phase, "said")).collect();
    report
}

fn observed(report: Option<JoinReport>, change: impl FnOnce(&mut DriverFacts)) -> Observed {
    let gpu = |index| GpuSample {
        index,
        uuid: format!("GPU-{index}"),
        name: "NVIDIA H100 80GB HBM3".into(),
        ..GpuSample::default()
    };
    let driver = Driver { version: "580.95.05".into(), count: 8, ..Driver::default() };
    let mut facts = DriverFacts {
        pci: Some(
            (0..8).map(|i| PciGpu { address: format!("{i}"), ..PciGpu::default() }).collect(),
        ),
        module: Module {
            version: Some("580.95.05".into()),
            source: "/proc/driver/nvidia/version",
            device_nodes: (0..8).collect(),
            ..Module::default()
        },
        nvml: NvmlFacts {
            driver: Some(driver),
            gpus: (0..8).map(gpu).collect(),
            outcome: Outcome::Complete,
        },
        up: Duration::MAX,
        ..DriverFacts::default()
    };
    change(&mut facts);
    let seen = |gpu: &GpuSample| SeenGpu { sample: gpu.clone(), at: Instant::now(), trouble: None };
    let snapshot = Snapshot {
        hostname: "n1".into(),
        gpus: facts.nvml.gpus.iter().map(seen).collect(),
        join: report,
        ..Snapshot::default()
    };
    Observed {
        snapshot: Arc::new(snapshot),
        facts: Some(facts),
        expected: Some(Expected { instance_type: "p5.48xlarge".into(), ..Expected::default() }),
    }
}

fn lose(index: usize) -> impl FnOnce(&mut DriverFacts) {
    move |facts| {
        let gpu = &mut facts.nvml.gpus[index];
        gpu.error = Some(CallError { call: "x".into(), code: 15, text: "lost".into() });
    }
}

fn hang(facts: &mut DriverFacts) {
    let after = Duration::from_secs(10);
    facts.nvml.outcome = Outcome::Hung { asking: "GPU 2".into(), after };
}

#[test]
fn what_it_says() {
    use JoinOutcome::{Failed, Joining, Ready};
    let keep = |_: &mut DriverFacts| {};
    let ready = || Some(report(Ready, &[]));
    for (what, observed, status, reason) in [
        ("ready and whole", observed(ready(), keep), "True", "NvidiaGPUIsReady"),
        ("ready, one lost", observed(ready(), lose(3)), "False", "NvidiaXID79Error"),
        ("ready, a hang", observed(ready(), hang), "False", "DCGMError"),
        (
            "ready, one missing",
            observed(ready(), |facts| {
                facts.pci.as_mut().unwrap().pop();
            }),
            "False",
            "NvidiaDeviceCountMismatch",
        ),
        ("joining", observed(Some(report(Joining, &[])), keep), "Unknown", "JoinUnderWay"),
        (
            "joining, one lost",
            observed(Some(report(Joining, &[])), lose(0)),
            "False",
            "NvidiaXID79Error",
        ),
        (
            "failed for the network",
            observed(Some(report(Failed, &[(Reason::CniNotReady, Phase::Ready)])), keep),
            "Unknown",
            "JoinFailed",
        ),
        (
            "failed for a fault that is gone",
            observed(
                Some(report(Failed, &[(Reason::DriverLibraryMismatch, Phase::Drivers)])),
                keep,
            ),
            "Unknown",
            "JoinFailed",
        ),
        (
            "failed for what kubelet offers",
            observed(Some(report(Failed, &[(Reason::GpuAllocatableShort, Phase::Ready)])), keep),
            "False",
            "NvidiaDeviceCountMismatch",
        ),
    ] {
        let desired = desired(&observed).expect(what);
        assert_eq!((desired.status, desired.reason.as_str()), (status, reason), "{what}");
        assert!(!desired.message.is_empty(), "{what}");
    }
}

#[test]
fn it_says_nothing_without_gpus_or_a_join() {
    assert_eq!(desired(&observed(None, |_| {})), None);
    let mut plain = observed(Some(report(JoinOutcome::Ready, &[])), |_| {});
    plain.expected = Some(Expected { instance_type: "m7i.large".into(), ..Expected::default() });
    assert_eq!(desired(&plain), None);
    let mut early = observed(Some(report(JoinOutcome::Ready, &[])), |_| {});
    early.facts = None;
    assert_eq!(desired(&early).unwrap().status, "Unknown");
}

#[test]
fn the_message_has_our_reason_and_its_numbers() {
    let desired = desired(&observed(Some(report(JoinOutcome::Ready, &[])), lose(3))).unwrap();
    assert_eq!(desired.message, "GpuLost: 7 of 8 GPUs work: GPU 3 at 3 fallen off the bus");
}

#[test]
fn it_waits_until_the_join_has_seen_the_node() {
    let seen = |phase, state, name: &str| {
        let mut report = report(JoinOutcome::Joining, &[]);
        let started_at = String::new();
        report.phases = vec![PhaseReport { phase, state, started_at, ms: 0, detail: None }];
        let mut snapshot = Snapshot { join: Some(report), ..Snapshot::default() };
        snapshot.hostname = name.into();
        is_registered(&Observed { snapshot: Arc::new(snapshot), ..Observed::default() })
    };
    assert!(seen(Phase::Register, PhaseState::Passed, "n1"));
    assert!(seen(Phase::Register, PhaseState::Degraded, "n1"));
    assert!(!seen(Phase::Register, PhaseState::Running, "n1"));
    assert!(!seen(Phase::Drivers, PhaseState::Passed, "n1"));
    assert!(!seen(Phase::Register, PhaseState::Passed, ""));
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn says(status: &'static str, message: &str) -> Desired {
    Desired { status, reason: "R".into(), message: message.into() }
}

#[test]
fn the_transition_time_moves_with_the_status_alone() {
    let first = plan(None, &says("True", "a"), at("2026-11-20T20:00:00.4Z")).unwrap();
    assert_eq!(first.last_transition_time.as_deref(), Some("2026-11-20T20:00:00Z"));

    let now = at("2026-11-20T20:01:00Z");
    assert_eq!(plan(Some(&first), &says("True", "a"), now), None, "nothing to say");

    let second = plan(Some(&first), &says("True", "b"), now).unwrap();
    assert_eq!(second.last_transition_time, first.last_transition_time);
    assert_eq!(second.last_heartbeat_time.as_deref(), Some("2026-11-20T20:01:00Z"));

    let third = plan(Some(&second), &says("False", "b"), at("2026-11-20T20:02:00Z")).unwrap();
    assert_eq!(third.last_transition_time.as_deref(), Some("2026-11-20T20:02:00Z"));
}

#[test]
fn an_unchanged_condition_is_confirmed_every_five_minutes() {
    let first = plan(None, &says("True", "a"), at("2026-11-20T20:00:00Z")).unwrap();
    assert_eq!(plan(Some(&first), &says("True", "a"), at("2026-11-20T20:04:59Z")), None);
    let later = plan(Some(&first), &says("True", "a"), at("2026-11-20T20:05:00Z")).unwrap();
    assert_eq!(later.last_transition_time, first.last_transition_time);
    assert_eq!(later.last_heartbeat_time.as_deref(), Some("2026-11-20T20:05:00Z"));
}

#[test]
fn ours_is_found_among_the_nodes_conditions() {
    let node = serde_json::json!({"status": {"conditions": [
        {"type": "Ready", "status": "True"},
        {"type": "AcceleratedHardwareReady", "status": "False", "reason": "NvidiaXID79Error",
         "message": "m", "lastTransitionTime": "2026-11-20T20:00:00Z"},
    ]}});
    let condition = existing(&node).unwrap();
    assert_eq!((condition.status.as_str(), condition.last_heartbeat_time), ("False", None));
    assert_eq!(existing(&serde_json::json!({"status": {}})), None);
}
