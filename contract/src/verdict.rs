//! What a gate answers, and how several answers become one cause.

use serde::{Deserialize, Serialize};

use crate::phase::Phase;
use crate::reason::{Reason, ReasonName};

/// One named cause with what was seen: the unit of every report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The cause.
    pub reason: ReasonName,
    /// The phase whose gate named it; none for what is seen only from outside the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// One sentence with the values that matter: `7 of 8 GPUs: PCI function 0000:b9:00.0 is missing`.
    pub summary: String,
    /// What was observed, each with its source; trimmed first when space is short.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

impl Finding {
    /// A finding of `phase`'s gate.
    #[must_use]
    pub fn new(reason: Reason, phase: Phase, summary: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            phase: Some(phase),
            summary: summary.into(),
            evidence: Vec::new(),
        }
    }

    /// Adds one observation, with its source.
    #[must_use]
    pub fn with_evidence(mut self, evidence: impl Into<String>) -> Self {
        self.evidence.push(evidence.into());
        self
    }
}

/// What a gate answers: a pure function of facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The gate is open.
    Pass,
    /// Not yet, and it can still heal by itself: what is waited for, as the finding it becomes
    /// when the deadline passes.
    Wait(Box<Finding>),
    /// Open, with something to report.
    Degraded(Vec<Finding>),
    /// Closed.
    Fail(Vec<Finding>),
}

impl Verdict {
    /// The verdict of a list of findings: hard ones close the gate, soft ones are reported.
    #[must_use]
    pub fn of(findings: Vec<Finding>) -> Self {
        if findings.is_empty() {
            Self::Pass
        } else if findings.iter().any(|f| f.reason.is_hard()) {
            Self::Fail(findings)
        } else {
            Self::Degraded(findings)
        }
    }

    /// Whether the gate lets the join through.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Pass | Self::Degraded(_))
    }
}

/// Orders findings so that the cause comes first, and drops what another finding explains.
///
/// Hard before soft, then by phase; a finding goes when another one's reason explains it, directly
/// or through a third (`Ec2ApiUnreachable` explains `NodeadmTimedOut`).
#[must_use]
pub fn rank(mut findings: Vec<Finding>) -> Vec<Finding> {
    let present: Vec<Reason> = findings.iter().filter_map(|f| f.reason.known()).collect();
    findings.retain(|finding| match finding.reason.known() {
        Some(reason) => !present.iter().any(|other| *other != reason && other.explains(reason)),
        None => true,
    });
    findings.sort_by_key(|f| (!f.reason.is_hard(), f.phase.is_none(), f.phase));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(reason: Reason, phase: Phase) -> Finding {
        Finding::new(reason, phase, "seen")
    }

    #[test]
    fn soft_findings_leave_the_gate_open() {
        assert!(Verdict::of(vec![]).is_open());
        assert!(Verdict::of(vec![finding(Reason::StsUnreachable, Phase::Preflight)]).is_open());
        assert!(!Verdict::of(vec![finding(Reason::GpuCountShort, Phase::Drivers)]).is_open());
    }

    #[test]
    fn the_cause_outranks_what_it_explains() {
        let ranked = rank(vec![
            finding(Reason::NodeadmConfigFailed, Phase::Bootstrap),
            finding(Reason::StsUnreachable, Phase::Preflight),
            finding(Reason::DriverLibraryMismatch, Phase::Drivers),
            finding(Reason::GpuCountShort, Phase::Drivers),
        ]);
        let names: Vec<_> = ranked.iter().map(|f| f.reason.to_string()).collect();
        assert_eq!(names, ["DriverLibraryMismatch", "NodeadmConfigFailed", "StsUnreachable"]);
    }
}
