//! The join report: the JSON that a node leaves behind on every channel that works.
//!
//! Times are RFC 3339 in UTC. Readers accept unknown fields and newer minor versions.

use serde::{Deserialize, Serialize};

use crate::phase::Phase;
use crate::verdict::Finding;

/// Version of the report's schema.
pub const SCHEMA: &str = "1.0";

/// What a node says of its join.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinReport {
    /// Version of this schema, `1.0`.
    pub schema: String,
    /// Name of the cluster; empty while it is not known yet.
    #[serde(default)]
    pub cluster: String,
    /// Name of the pool; empty while it is not known yet.
    #[serde(default)]
    pub pool: String,
    /// The instance.
    pub instance: Instance,
    /// The agent that wrote the report.
    pub agent: Agent,
    /// Kernel boot id: a reboot begins a new join.
    #[serde(default)]
    pub boot: String,
    /// Number of this proving within the boot; 1 is the first.
    pub attempt: u32,
    /// When this attempt began.
    pub started: String,
    /// When the node has to be registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// When the report was written.
    pub updated: String,
    /// The phases that have begun, in join order.
    pub phases: Vec<PhaseReport>,
    /// Named causes, the cause first.
    pub reasons: Vec<Finding>,
    /// Repairs that were tried before the verdict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repairs: Vec<Repair>,
    /// What is known of the GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Gpus>,
    /// How the join stands.
    pub outcome: JoinOutcome,
}

/// Who the node is, as IMDS says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Instance id; empty while it is not known yet.
    #[serde(default)]
    pub id: String,
    /// Instance type.
    #[serde(default, rename = "type")]
    pub instance_type: String,
    /// Availability zone.
    #[serde(default)]
    pub zone: String,
    /// Name of the Node object.
    #[serde(default)]
    pub name: String,
}

/// The agent that wrote the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Version of the agent.
    pub version: String,
}

/// One phase of the join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseReport {
    /// Which.
    pub phase: Phase,
    /// How it stands.
    pub state: PhaseState,
    /// When it began.
    pub started_at: String,
    /// How long it took, or has taken, in milliseconds.
    pub ms: u64,
    /// What is waited for, or why it was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// How a phase stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhaseState {
    /// Begun.
    Running,
    /// Waits for something that can still come.
    Waiting,
    /// Its gate is open.
    Passed,
    /// Its gate is open, with something to report.
    Degraded,
    /// Not needed on this node.
    Skipped,
    /// Its gate is closed.
    Failed,
}

/// How the join stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JoinOutcome {
    /// Under way.
    Joining,
    /// Ready, with all GPUs proven.
    Ready,
    /// A gate is closed; the agent goes on proving.
    Failed,
}

impl JoinOutcome {
    /// The word on every channel.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }
}

/// One repair that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Repair {
    /// The reason it was tried for.
    pub reason: String,
    /// What was done.
    pub action: String,
    /// Whether it helped.
    pub helped: bool,
}

/// The GPUs at each layer: expected, on the bus, in the driver, in NVML.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gpus {
    /// Number that the instance type has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<u32>,
    /// NVIDIA display functions on the PCI bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci: Option<u32>,
    /// Device nodes `/dev/nvidia[0-9]*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_nodes: Option<u32>,
    /// Devices that NVML opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvml: Option<u32>,
    /// Parts that GPUs are divided into by MIG; none where no GPU is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig_devices: Option<u32>,
    /// Version of the kernel module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Whether the GPUs' own processors run the driver's firmware (GSP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gsp: Option<bool>,
    /// One entry per GPU.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Gpu>,
}

/// One GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// NVML index.
    pub index: u32,
    /// PCI address, `0000:53:00.0`.
    pub pci: String,
    /// UUID; empty when the GPU does not answer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uuid: String,
    /// Product name; empty when the GPU does not answer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What is wrong with it, as NVML says; none when it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the checks found on it, each behind its reason: `RowRemapPending: has a bad row …`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<String>,
}

impl Gpu {
    /// Whether it answers and nothing was found on it.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.error.is_none() && self.found.is_empty()
    }
}

impl JoinReport {
    /// The cause: the first reason.
    #[must_use]
    pub fn cause(&self) -> Option<&Finding> {
        self.reasons.first()
    }

    /// The phase that the join is in: the first failed one, else the last that has begun.
    #[must_use]
    pub fn current_phase(&self) -> Option<Phase> {
        let failed = self.phases.iter().find(|p| p.state == PhaseState::Failed);
        failed.or(self.phases.last()).map(|p| p.phase)
    }

    /// The report parameter's Description, an index that answers the fleet's histogram alone:
    /// `v1 reason=<Reason> phase=<phase> attempt=<n>`.
    #[must_use]
    pub fn description(&self) -> String {
        let reason = self.cause().map_or("none", |f| f.reason.as_str());
        let phase = self.cause().and_then(|f| f.phase).or(self.current_phase());
        let phase = phase.map_or("none", Phase::label);
        format!("v1 reason={reason} phase={phase} attempt={}", self.attempt)
    }

    /// The report as one line of JSON of at most `limit` bytes.
    ///
    /// Evidence goes first, its last lines before its first; then the healthy GPUs, then whatever
    /// reasons stand behind the cause, and at the very end the cause's own summary is cut.
    #[must_use]
    pub fn to_json_within(&self, limit: usize) -> String {
        let mut report = self.clone();
        loop {
            let json = serde_json::to_string(&report).unwrap_or_default();
            if json.len() <= limit || !report.trim_once(json.len() - limit) {
                return json;
            }
        }
    }

    /// Drops the least valuable thing; false when nothing is left that may go.
    fn trim_once(&mut self, excess: usize) -> bool {
        if let Some(finding) = self.reasons.iter_mut().rev().find(|f| !f.evidence.is_empty()) {
            finding.evidence.pop();
            return true;
        }
        if let Some(gpus) = &mut self.gpus
            && let Some(healthy) = gpus.items.iter().rposition(Gpu::is_well)
        {
            gpus.items.remove(healthy);
            return true;
        }
        if self.repairs.pop().is_some() {
            return true;
        }
        if self.reasons.len() > 1 {
            self.reasons.pop();
            return true;
        }
        if let Some(gpus) = &mut self.gpus
            && gpus.items.pop().is_some()
        {
            return true;
        }
        match self.reasons.first_mut() {
            Some(cause) if !cause.summary.is_empty() => {
                let keep = cause.summary.len().saturating_sub(excess.max(16));
                cause.summary.truncate(cause.summary.floor_char_boundary(keep));
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    pub(crate) fn sample() -> JoinReport {
        let finding = Finding::new(
            Reason::GpuCountShort,
            Phase::Drivers,
            "7 of 8 GPUs: missing on the PCI bus (expected 8, PCI 7, device nodes 7, NVML 7)",
        )
        .with_evidence("/sys/bus/pci/devices: 7 functions of vendor 0x10de");
        JoinReport {
            schema: SCHEMA.into(),
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
            attempt: 2,
            started: "2026-11-20T20:00:00Z".into(),
            deadline: Some("2026-11-20T20:10:00Z".into()),
            updated: "2026-11-20T20:00:03Z".into(),
            phases: vec![
                PhaseReport {
                    phase: Phase::Identify,
                    state: PhaseState::Passed,
                    started_at: "2026-11-20T20:00:00Z".into(),
                    ms: 12,
                    detail: None,
                },
                PhaseReport {
                    phase: Phase::Drivers,
                    state: PhaseState::Failed,
                    started_at: "2026-11-20T20:00:01Z".into(),
                    ms: 410,
                    detail: None,
                },
            ],
            reasons: vec![finding],
            repairs: vec![],
            gpus: Some(Gpus {
                expected: Some(8),
                pci: Some(7),
                device_nodes: Some(7),
                nvml: Some(7),
                mig_devices: None,
                driver: Some("580.95.05".into()),
                gsp: Some(true),
                items: vec![Gpu {
                    index: 0,
                    pci: "0000:53:00.0".into(),
                    uuid: "GPU-5ee1".into(),
                    name: "NVIDIA H100 80GB HBM3".into(),
                    error: None,
                    found: vec![],
                }],
            }),
            outcome: JoinOutcome::Failed,
        }
    }

    #[test]
    fn matches_the_golden_file() {
        let golden = include_str!("../golden/join_report.json");
        assert_eq!(serde_json::to_string_pretty(&sample()).unwrap() + "\n", golden);
        assert_eq!(serde_json::from_str::<JoinReport>(golden).unwrap(), sample());
    }

    #[test]
    fn a_reader_ignores_what_a_newer_writer_adds() {
        let mut value = serde_json::to_value(sample()).unwrap();
        value["schema"] = "1.7".into();
        value["weather"] = "fine".into();
        value["reasons"][0]["reason"] = "SomethingNewer".into();
        let read: JoinReport = serde_json::from_value(value).unwrap();
        assert_eq!(read.cause().unwrap().reason.as_str(), "SomethingNewer");
    }

    #[test]
    fn description_is_the_index() {
        assert_eq!(sample().description(), "v1 reason=GpuCountShort phase=drivers attempt=2");
    }

    #[test]
    fn trimming_keeps_the_cause_longest() {
        let mut report = sample();
        report.reasons[0].evidence = vec!["x".repeat(4000), "y".repeat(4000)];
        let json = report.to_json_within(3584);
        assert!(json.len() <= 3584);
        let read: JoinReport = serde_json::from_str(&json).unwrap();
        assert_eq!(read.cause().unwrap().summary, report.cause().unwrap().summary);

        report.reasons[0].summary = "ü".repeat(3000);
        let json = report.to_json_within(2048);
        assert!(json.len() <= 2048);
        assert_eq!(
            serde_json::from_str::<JoinReport>(&json).unwrap().cause().unwrap().reason.as_str(),
            "GpuCountShort"
        );
    }
}
