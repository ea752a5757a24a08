//! Evidence for tests: one GPU node of pool `h100`, from which each test bends what it is about.

use std::collections::BTreeMap;

use contract::JoinReport;
use contract::agent_config::GpuOffer;
use contract::{Finding, Phase, Reason};
use jiff::Timestamp;

use super::facts::{Author, ConsoleFacts, InstanceFacts, Known, NodeEvidence, ReportFacts};
use super::gather::{AccessFacts, Evidence, StatusChecks};
use super::pools::PoolFacts;
use crate::kube::{ConditionFacts, NodeFacts};

pub(crate) const ID: &str = "i-0123456789abcdef0";

/// 20:00:00; the instance was launched then.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_795_204_800 + seconds).unwrap()
}

/// A running instance that has said nothing yet.
pub(crate) fn silent() -> NodeEvidence {
    NodeEvidence {
        instance: InstanceFacts {
            id: ID.into(),
            instance_type: "p5.48xlarge".into(),
            zone: "us-east-1a".into(),
            state: "running".into(),
            state_reason: None,
            launched: at(0),
            launch_index: 0,
            pool: "h100".into(),
            layer: "gpu".into(),
            offer: GpuOffer::DevicePlugin,
            join_tag: None,
            profile_arn: None,
        },
        node: Known::Known(None),
        report: Known::Known(None),
        console: Known::Known(Some(ConsoleFacts::default())),
        slices: Known::Known(None),
        gpus_expected: Some(8),
    }
}

/// The contract's golden report, about another cause.
pub(crate) fn report(reason: Reason, phase: Phase, summary: &str) -> JoinReport {
    let golden = include_str!("../../../contract/golden/join_report.json");
    let mut report: JoinReport = serde_json::from_str(golden).unwrap();
    report.reasons = vec![Finding::new(reason, phase, summary)];
    report.updated = at(30).to_string();
    report.phases[1].phase = phase;
    report.gpus = None;
    report
}

/// A node whose report names a cause.
pub(crate) fn failed(reason: Reason, phase: Phase) -> NodeEvidence {
    let report = report(reason, phase, "seen");
    NodeEvidence {
        report: Known::Known(Some(ReportFacts { report, author: Author::Itself })),
        ..silent()
    }
}

pub(crate) fn condition(status: &str, reason: &str, message: &str) -> ConditionFacts {
    ConditionFacts {
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        since: None,
    }
}

/// A registered node with everything that was paid for.
pub(crate) fn proven() -> NodeEvidence {
    let node = NodeFacts {
        name: "ip-10-0-1-7.ec2.internal".into(),
        provider_id: format!("aws:///us-east-1a/{ID}"),
        created: Some(at(60).to_string()),
        conditions: BTreeMap::from([
            ("Ready".into(), condition("True", "KubeletReady", "kubelet is posting ready status")),
            ("AcceleratedHardwareReady".into(), condition("True", "Proven", "8 of 8 GPUs work")),
        ]),
        allocatable: BTreeMap::from([("nvidia.com/gpu".into(), "8".into())]),
        ..NodeFacts::default()
    };
    NodeEvidence { node: Known::Known(Some(node)), ..silent() }
}

/// Bends the Node object of a registered node.
pub(crate) fn bend(
    mut evidence: NodeEvidence,
    change: impl FnOnce(&mut NodeFacts),
) -> NodeEvidence {
    if let Known::Known(Some(node)) = &mut evidence.node {
        change(node);
    }
    evidence
}

/// Everything around a node that is as it should be.
pub(crate) fn around(node: NodeEvidence) -> Evidence {
    Evidence {
        console: match &node.console {
            Known::Known(console) => Known::Known(console.clone().unwrap_or_default()),
            Known::Unknown(why) => Known::Unknown(why.clone()),
        },
        checks: Known::Known(Some(StatusChecks { system: "ok".into(), instance: "ok".into() })),
        pool: Known::Known(Some(PoolFacts {
            name: "h100".into(),
            status: "CREATING".into(),
            desired: 4,
            ..PoolFacts::default()
        })),
        activities: Known::Known(vec![]),
        access: Known::Known(AccessFacts {
            role: "arn:aws:iam::111122223333:role/prod-gpu-node".into(),
            entry: Some("EC2_LINUX".into()),
        }),
        events: Known::Known(vec![]),
        node,
    }
}
