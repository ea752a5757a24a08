//! The join report: built here, purely, and sent over every channel that works.
//!
//! The most independent channel first: the serial console ([`console`]), the file on the node
//! ([`mod@file`]), Parameter Store ([`parameter`]) and the tag on the instance ([`tag`]). A channel that
//! fails never holds the join up: each has a task of its own that sees only the latest report, and a
//! [`spool`] that outlives it. A join that fails leaves its [`evidence`]. Nothing of it holds a secret:
//! [`redact`].

pub mod channel;
pub mod console;
pub mod evidence;
pub mod file;
pub mod parameter;
pub mod redact;
pub mod spool;
pub mod tag;

use contract::join_report::{JoinOutcome, PhaseReport, PhaseState};
use contract::{Finding, JoinReport, Phase};

/// How the join stands: `open` are findings of an earlier proving that nothing has refuted yet.
#[must_use]
pub fn outcome(phases: &[PhaseReport], open: &[Finding]) -> JoinOutcome {
    let is = |phase: &PhaseReport, states: &[PhaseState]| states.contains(&phase.state);
    let through = [PhaseState::Passed, PhaseState::Degraded];
    if !open.is_empty() || phases.iter().any(|phase| is(phase, &[PhaseState::Failed])) {
        JoinOutcome::Failed
    } else if phases.iter().any(|phase| phase.phase == Phase::Ready && is(phase, &through)) {
        JoinOutcome::Ready
    } else {
        JoinOutcome::Joining
    }
}

/// What makes two reports the same verdict: a report with another one is said anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictKey {
    outcome: JoinOutcome,
    reasons: Vec<String>,
}

impl std::fmt::Display for VerdictKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.outcome.label(), self.reasons.join(" "))
    }
}

impl VerdictKey {
    /// The verdict that a report carries.
    #[must_use]
    pub fn of(report: &JoinReport) -> Self {
        Self {
            outcome: report.outcome,
            reasons: report.reasons.iter().map(|finding| finding.reason.to_string()).collect(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use contract::Reason;
    use contract::join_report::{Agent, Instance, SCHEMA};

    use super::*;

    pub(crate) fn report(outcome: JoinOutcome, reasons: &[Reason]) -> JoinReport {
        let findings = reasons.iter().map(|r| Finding::new(*r, Phase::Drivers, "seen")).collect();
        JoinReport {
            schema: SCHEMA.into(),
            cluster: "prod".into(),
            pool: "h100".into(),
            instance: Instance { id: "i-0abc".into(), ..Instance::default() },
            agent: Agent { version: "0.1.0".into() },
            boot: "b".into(),
            attempt: 1,
            started: String::new(),
            deadline: None,
            updated: String::new(),
            phases: vec![],
            reasons: findings,
            repairs: vec![],
            gpus: None,
            outcome,
        }
    }

    fn phase(phase: Phase, state: PhaseState) -> PhaseReport {
        PhaseReport { phase, state, started_at: String::new(), ms: 0, detail: None }
    }

    #[test]
    fn the_outcome_follows_from_the_phases() {
        use PhaseState::{Degraded, Failed, Passed, Running, Skipped, Waiting};
        let finding = Finding::new(Reason::GpuLost, Phase::Drivers, "x");
        let open = [finding];
        for (phases, open, expected) in [
            (vec![], &[][..], JoinOutcome::Joining),
            (vec![phase(Phase::Drivers, Running)], &[][..], JoinOutcome::Joining),
            (vec![phase(Phase::Drivers, Running)], &open[..], JoinOutcome::Failed),
            (
                vec![phase(Phase::Preflight, Waiting), phase(Phase::Drivers, Failed)],
                &[][..],
                JoinOutcome::Failed,
            ),
            (
                vec![phase(Phase::Drivers, Skipped), phase(Phase::Ready, Passed)],
                &[][..],
                JoinOutcome::Ready,
            ),
            (vec![phase(Phase::Ready, Degraded)], &[][..], JoinOutcome::Ready),
            (vec![phase(Phase::Ready, Waiting)], &[][..], JoinOutcome::Joining),
        ] {
            assert_eq!(outcome(&phases, open), expected, "{phases:?}");
        }
    }

    #[test]
    fn a_verdict_changes_with_outcome_and_reasons_only() {
        let one = report(JoinOutcome::Failed, &[Reason::GpuLost]);
        let mut later = one.clone();
        later.attempt = 7;
        later.reasons[0].summary = "another GPU".into();
        assert_eq!(VerdictKey::of(&one), VerdictKey::of(&later));
        let other = report(JoinOutcome::Failed, &[Reason::GpuCountShort]);
        assert_ne!(VerdictKey::of(&one), VerdictKey::of(&other));
    }
}
