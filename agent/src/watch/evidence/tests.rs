//! What an observation comes to, and what the condition says of it in the end.

use std::sync::Arc;
use std::time::Duration;

use contract::join_report::PhaseReport;
use tokio::time::Instant;

use super::*;
use crate::gpu::sample::GpuSample;
use crate::metrics::snapshot::{SeenGpu, Snapshot};
use crate::phases::drivers::{DriverFacts, Expected};
use crate::watch::health::{Health, Look, Rules, Standing, step};
use crate::watch::testing::{self, report};

fn observed(report: Option<JoinReport>, change: impl FnOnce(&mut DriverFacts)) -> Observed {
    let mut facts = testing::facts(8, "NVIDIA H100 80GB HBM3");
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
        ..Observed::default()
    }
}

fn lose(index: usize) -> impl FnOnce(&mut DriverFacts) {
    move |facts| {
        let gpu = &mut facts.nvml.gpus[index];
        gpu.error = Some(CallError { call: "x".into(), code: 15, text: "lost".into() });
    }
}

/// What the condition says after two such rounds, and a minute of being blind where that is so.
fn said(observed: &Observed) -> Standing {
    let evidence = of(observed, true).unwrap();
    let mut health = Health::default();
    for seconds in [5, 10, 100] {
        let look = Look {
            is_round: true,
            is_complete: evidence.is_complete,
            is_unloaded: evidence.is_unloaded,
            findings: &evidence.findings,
            signs: evidence.signs.as_ref(),
            lines: &[],
            blind: evidence.blind.clone(),
            gpus: &evidence.gpus,
            xids: &[],
            join: evidence.join.clone(),
        };
        health = step(health, &look, &Rules::default(), Duration::from_secs(seconds)).0;
    }
    health.standing.unwrap()
}

#[test]
fn what_the_condition_comes_to() {
    use JoinOutcome::{Failed, Joining, Ready};
    let keep = |_: &mut DriverFacts| {};
    let hang = |facts: &mut DriverFacts| {
        let after = Duration::from_secs(10);
        facts.nvml.outcome = Outcome::Hung { asking: "GPU 2".into(), after };
    };
    let remove = |facts: &mut DriverFacts| {
        facts.pci.as_mut().unwrap().pop();
    };
    let forbid = |facts: &mut DriverFacts| {
        let error = CallError { call: "nvmlInit".into(), code: 4, text: "no".into() };
        facts.nvml.gpus.clear();
        facts.nvml.driver = None;
        facts.nvml.outcome = Outcome::Failed(Failure::Init { library: "l".into(), error });
    };
    let ready = || Some(report(Ready, &[]));
    let short = (Reason::GpuAllocatableShort, Phase::Ready);
    for (what, observed, status, reason) in [
        ("ready and whole", observed(ready(), keep), "True", "NvidiaGPUIsReady"),
        ("ready, one lost", observed(ready(), lose(3)), "False", "NvidiaXID79Error"),
        ("ready, a hang", observed(ready(), hang), "False", "DCGMError"),
        ("ready, one missing", observed(ready(), remove), "False", "NvidiaDeviceCountMismatch"),
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
            observed(Some(report(Failed, &[short])), keep),
            "False",
            "NvidiaDeviceCountMismatch",
        ),
        ("ready, NVML forbidden", observed(ready(), forbid), "Unknown", "NotObservable"),
    ] {
        let standing = said(&observed);
        assert_eq!((standing.status.name(), standing.reason.as_str()), (status, reason), "{what}");
        assert!(!standing.message.is_empty(), "{what}");
    }
}

#[test]
fn it_says_nothing_without_gpus_or_a_join() {
    let mut nobody = observed(None, |_| {});
    nobody.expected = None;
    assert_eq!(of(&nobody, true), None);
    let mut plain = observed(Some(report(JoinOutcome::Ready, &[])), |_| {});
    plain.expected = Some(Expected { instance_type: "m7i.large".into(), ..Expected::default() });
    assert_eq!(of(&plain, true), None);
}

#[test]
fn what_cannot_be_seen_is_said() {
    let ready = || Some(report(JoinOutcome::Ready, &[]));
    let mut early = observed(ready(), |_| {});
    early.facts = None;
    assert_eq!(
        of(&early, true).unwrap().blind.as_deref(),
        Some("the GPUs have not been sampled yet")
    );

    let mut deaf = observed(ready(), |_| {});
    assert_eq!(of(&deaf, true).unwrap().blind, None);
    assert!(of(&deaf, false).unwrap().blind.is_some(), "nobody tells of XIDs");
    deaf.listens = true;
    assert_eq!(of(&deaf, false).unwrap().blind, None);
}

#[test]
fn the_message_has_our_reason_and_its_numbers() {
    let standing = said(&observed(Some(report(JoinOutcome::Ready, &[])), lose(3)));
    assert_eq!(
        standing.message,
        "GpuLost: 7 of 8 GPUs work: GPU 3 at 0000:53:00.0 fallen off the bus"
    );
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
