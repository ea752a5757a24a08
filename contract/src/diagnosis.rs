//! What `rollcall-agent diagnose` answers: every gate at once, as it stands now.
//!
//! It has the join report's words, so that whoever reads one reads the other; it is made afresh,
//! by somebody who looks on and changes nothing. Times are RFC 3339 in UTC.

use serde::{Deserialize, Serialize};

use crate::join_report::{Agent, Gpus, Instance, JoinOutcome};
use crate::phase::Phase;
use crate::verdict::Finding;

/// Version of the diagnosis' schema.
pub const SCHEMA: &str = "1.0";

/// What a look at a node shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    /// Version of this schema, `1.0`.
    pub schema: String,
    /// When the look began.
    pub at: String,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// Name of the cluster; empty when nothing on the node says it.
    #[serde(default)]
    pub cluster: String,
    /// Name of the pool; empty when nothing on the node says it.
    #[serde(default)]
    pub pool: String,
    /// The instance.
    pub instance: Instance,
    /// The agent that looked.
    pub agent: Agent,
    /// Kernel boot id.
    #[serde(default)]
    pub boot: String,
    /// How long the node has been up, in seconds; none when it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime: Option<u64>,
    /// How the node stands by what was seen now.
    pub outcome: JoinOutcome,
    /// Named causes, the cause first.
    pub reasons: Vec<Finding>,
    /// What to do about the cause; none when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Every phase, in join order.
    pub phases: Vec<Check>,
    /// What is known of the GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Gpus>,
    /// What the join itself says, when it has left a report in this boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<JoinSays>,
    /// What else a reader should know, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One phase's gate, looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Which.
    pub phase: Phase,
    /// What its gate would answer now.
    pub state: CheckState,
    /// How long the look took, in milliseconds.
    pub ms: u64,
    /// What it lacks, or why it was not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What a gate would answer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// It is open.
    Passed,
    /// It is open, with something to report.
    Degraded,
    /// Not yet, and it can still heal by itself.
    Waiting,
    /// It is closed.
    Failed,
    /// This node does not need it.
    Skipped,
    /// It could not be looked at, or its turn has not come.
    Unknown,
}

/// What the join itself says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinSays {
    /// How it stands.
    pub outcome: JoinOutcome,
    /// Number of the proving.
    pub attempt: u32,
    /// When it said so.
    pub updated: String,
    /// Its reasons, the cause first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Finding>,
}

impl Diagnosis {
    /// The cause: the first reason.
    #[must_use]
    pub fn cause(&self) -> Option<&Finding> {
        self.reasons.first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    fn sample() -> Diagnosis {
        let finding = Finding::new(Reason::GpuLost, Phase::Drivers, "1 of 8 GPUs is lost")
            .with_evidence("NVML: GPU 3 at 0000:64:00.0: the GPU is lost");
        Diagnosis {
            schema: SCHEMA.into(),
            at: "2026-11-20T20:04:00.000Z".into(),
            ms: 312,
            cluster: "prod".into(),
            pool: "h100".into(),
            instance: Instance {
                id: "i-0123456789abcdef0".into(),
                instance_type: "p5.48xlarge".into(),
                zone: "us-east-1a".into(),
                name: "ip-10-0-1-7.ec2.internal".into(),
            },
            agent: Agent { version: "0.1.0".into() },
            boot: "6e1c2b9e-6f0b-4c39-9c55-0f4f9f1f2a3b".into(),
            uptime: Some(240),
            outcome: JoinOutcome::Failed,
            reasons: vec![finding.clone()],
            fix: Some("replace the instance".into()),
            phases: vec![
                Check { phase: Phase::Identify, state: CheckState::Passed, ms: 4, detail: None },
                Check {
                    phase: Phase::Register,
                    state: CheckState::Unknown,
                    ms: 0,
                    detail: Some("kubelet has not been let in".into()),
                },
            ],
            gpus: Some(Gpus { expected: Some(8), pci: Some(8), ..Gpus::default() }),
            join: Some(JoinSays {
                outcome: JoinOutcome::Failed,
                attempt: 2,
                updated: "2026-11-20T20:03:51.120Z".into(),
                reasons: vec![finding],
            }),
            notes: vec!["not run as root".into()],
        }
    }

    #[test]
    fn matches_the_golden_file() {
        let golden = include_str!("../golden/diagnosis.json");
        assert_eq!(serde_json::to_string_pretty(&sample()).unwrap() + "\n", golden);
        assert_eq!(serde_json::from_str::<Diagnosis>(golden).unwrap(), sample());
    }

    #[test]
    fn a_reader_ignores_what_a_newer_writer_adds() {
        let mut value = serde_json::to_value(sample()).unwrap();
        value["mood"] = "fine".into();
        value["reasons"][0]["reason"] = "SomethingNewer".into();
        let read: Diagnosis = serde_json::from_value(value).unwrap();
        assert_eq!(read.cause().unwrap().reason.as_str(), "SomethingNewer");
    }
}
