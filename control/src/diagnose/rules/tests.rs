//! Causes on tables of evidence.

use super::*;
use crate::diagnose::facts::{ConsoleFacts, Known, NodeEvidence};
use crate::diagnose::gather::StatusChecks;
use crate::diagnose::samples::{around, at, bend, condition, failed, proven, silent};

fn cause(evidence: &Evidence, after: i64) -> Option<(Reason, Confidence)> {
    let diagnosis = diagnose(evidence, at(after));
    diagnosis.candidates.first().map(|c| (c.reason.known().unwrap(), c.confidence))
}

fn without_entry(node: NodeEvidence) -> Evidence {
    let mut evidence = around(node);
    if let Known::Known(access) = &mut evidence.access {
        access.entry = None;
    }
    evidence
}

/// Every reason of the table that a node's report can bring is the cause with certainty.
#[test]
fn what_a_node_says_of_itself_is_the_cause() {
    for reason in Reason::ALL.iter().copied().filter(|reason| reason.is_hard()) {
        let contract::reason::Owner::Phase(phase) = reason.entry().owner else { continue };
        let found = cause(&around(failed(reason, phase)), 60);
        assert_eq!(found, Some((reason, Confidence::Certain)), "{reason}");
    }
}

#[test]
fn causes() {
    use Confidence::{Certain, Likely, Possible};
    let booted = NodeEvidence {
        console: Known::Known(Some(ConsoleFacts::of("cloud-init: done"))),
        ..silent()
    };
    let mut impaired = around(silent());
    impaired.checks =
        Known::Known(Some(StatusChecks { system: "impaired".into(), instance: "ok".into() }));
    let mut given_up = around(silent());
    if let Known::Known(Some(pool)) = &mut given_up.pool {
        pool.status = "CREATE_FAILED".into();
    }
    let mut unsigned = failed(Reason::GpuAbsent, Phase::Drivers);
    if let Known::Known(Some(report)) = &mut unsigned.report {
        report.author = Author::Unrecorded;
    }
    let lost = bend(proven(), |node| {
        let lost = condition("False", "NvidiaXID79Error", "GpuLost: GPU 3 has fallen off the bus");
        node.conditions.insert("AcceleratedHardwareReady".into(), lost);
    });
    let lapsed = bend(proven(), |node| {
        let unknown =
            condition("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.");
        node.conditions.insert("Ready".into(), unknown);
    });
    let refused = || failed(Reason::ApiServerUnauthorized, Phase::Preflight);
    for (name, evidence, after, expected) in [
        ("healthy", around(proven()), 90, None),
        ("nothing wrong yet", around(silent()), 30, None),
        ("never booted", around(silent()), 400, Some((Reason::NeverBooted, Likely))),
        ("host impaired", impaired, 60, Some((Reason::NeverBooted, Likely))),
        ("silent agent", around(booted), 700, Some((Reason::AgentSilent, Possible))),
        ("refused", around(refused()), 60, Some((Reason::ApiServerUnauthorized, Certain))),
        ("no entry", without_entry(refused()), 60, Some((Reason::AccessEntryMissing, Certain))),
        (
            "no entry, silent",
            without_entry(silent()),
            60,
            Some((Reason::AccessEntryMissing, Likely)),
        ),
        (
            "entry taken away",
            without_entry(lapsed),
            400,
            Some((Reason::AccessEntryMissing, Likely)),
        ),
        ("no entry needed", without_entry(proven()), 90, None),
        ("given up", given_up, 60, Some((Reason::NodeGroupCreateFailed, Possible))),
        ("unsigned report", around(unsigned), 60, Some((Reason::GpuAbsent, Likely))),
        ("lost later", around(lost), 90, Some((Reason::GpuLost, Certain))),
    ] {
        assert_eq!(cause(&evidence, after), expected, "{name}");
    }
}

#[test]
fn what_is_explained_is_no_second_cause() {
    let mut node = failed(Reason::DriverLibraryMismatch, Phase::Drivers);
    if let Known::Known(Some(facts)) = &mut node.report {
        facts.report.reasons.push(Finding::new(Reason::GpuCountShort, Phase::Drivers, "0 of 8"));
    }
    let found = diagnose(&around(node), at(60)).candidates;
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_channel_that_fails_hides_no_other() {
    let mut evidence = around(failed(Reason::GpuAbsent, Phase::Drivers));
    evidence.console = Known::Unknown("could not read the console: denied".into());
    evidence.pool = Known::Unknown("could not list the node groups: denied".into());
    evidence.access = Known::Unknown("could not read the access entry: denied".into());
    evidence.activities = Known::Unknown("could not read the scaling activities: denied".into());
    evidence.node.node = Known::Unknown("could not list the nodes: denied".into());
    let diagnosis = diagnose(&evidence, at(60));
    assert_eq!(diagnosis.candidates[0].reason, Reason::GpuAbsent);
    for source in ["console", "node group", "access", "kubernetes"] {
        assert!(
            diagnosis
                .evidence
                .iter()
                .any(|o| o.source == source && o.text.starts_with("could not")),
            "{source}: {:?}",
            diagnosis.evidence
        );
    }
}

#[test]
fn a_forged_report_is_told_and_not_used() {
    let mut node = failed(Reason::GpuAbsent, Phase::Drivers);
    if let Known::Known(Some(report)) = &mut node.report {
        report.author = Author::Other("arn:aws:sts::1:assumed-role/r/i-0def".into());
    }
    let diagnosis = diagnose(&around(node), at(60));
    assert!(diagnosis.candidates.is_empty() && diagnosis.timeline.is_empty());
    assert_eq!(
        diagnosis.evidence[0].text,
        "not believed: it was written by `arn:aws:sts::1:assumed-role/r/i-0def`"
    );
}

#[test]
fn durations() {
    assert_eq!(
        ["0s", "59s", "1m00s", "1h01m"],
        [0, 59, 60, 3660].map(minutes).each_ref().map(String::as_str)
    );
}
