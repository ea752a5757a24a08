//! What the sampler observes, as the health's look sees it: pure.

use contract::join_report::{JoinOutcome, PhaseState};
use contract::{Finding, JoinReport, Phase, Reason, Verdict};

use super::health::{GpuLook, JoinStanding, Logged, Look, Seen};
use super::sampler::Observed;
use crate::gpu::checks::over_time::{self, Signs};
use crate::gpu::probe::Outcome;
use crate::gpu::sample::{CallError, Failure};
use crate::phases::drivers;

/// What a look sees, beside what the driver logs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Evidence {
    pub(super) is_complete: bool,
    pub(super) is_unloaded: bool,
    pub(super) findings: Vec<Finding>,
    pub(super) signs: Option<Signs>,
    pub(super) blind: Option<String>,
    pub(super) gpus: Vec<GpuLook>,
    pub(super) join: JoinStanding,
}

impl Evidence {
    /// With what the driver and the kernel have logged since the last look.
    pub(super) fn look<'a>(
        &'a self,
        is_round: bool,
        xids: &'a [Seen],
        lines: &'a [Logged],
    ) -> Look<'a> {
        Look {
            is_round,
            is_complete: self.is_complete,
            is_unloaded: self.is_unloaded,
            findings: &self.findings,
            signs: self.signs.as_ref(),
            lines,
            blind: self.blind.clone(),
            gpus: &self.gpus,
            xids,
            join: self.join.clone(),
        }
    }
}

/// Of an observation; none on a node that has no GPUs, and while nobody knows what it should have.
pub(super) fn of(observed: &Observed, reads_log: bool) -> Option<Evidence> {
    let expected = observed.expected.as_ref()?;
    if drivers::skipped(expected).is_some() {
        return None;
    }
    let join = observed.snapshot.join.as_ref().map_or(JoinStanding::Unknown, join);
    let Some(facts) = &observed.facts else {
        let why = observed.blind.clone();
        let blind = Some(why.unwrap_or_else(|| "the GPUs have not been sampled yet".to_owned()));
        return Some(Evidence { blind, join, ..Evidence::default() });
    };
    let forbidden = may_not(&facts.nvml.outcome);
    let mut findings = match drivers::verdict(facts, expected) {
        // That we may not ask is no fault of the GPUs.
        _ if forbidden.is_some() => Vec::new(),
        Verdict::Pass => Vec::new(),
        Verdict::Degraded(findings) | Verdict::Fail(findings) => findings,
        Verdict::Wait(finding) => vec![*finding],
    };
    findings.extend(drivers::after_join(facts, expected));
    let gpus = facts.nvml.gpus.iter().map(|gpu| GpuLook {
        pci: gpu.pci.clone(),
        uuid: gpu.uuid.clone(),
        answers: gpu.error.is_none(),
        parts: gpu.parts(),
        recovery: gpu.readings.recovery_action,
    });
    let unheard = (!reads_log && !observed.listens)
        .then(|| "neither the kernel log nor NVML tells of XIDs".to_owned());
    Some(Evidence {
        is_complete: facts.nvml.outcome == Outcome::Complete,
        is_unloaded: matches!(facts.nvml.outcome, Outcome::NotAsked(_)),
        blind: observed.blind.clone().or(forbidden).or(unheard),
        gpus: gpus.collect(),
        signs: Some(over_time::signs(facts)),
        findings,
        join,
    })
}

/// What we may not ask we cannot know.
fn may_not(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Failed(Failure::Init { error, .. }) if error.code == CallError::NO_PERMISSION => {
            Some(format!("NVML may not be asked: {error}"))
        }
        _ => None,
    }
}

fn join(report: &JoinReport) -> JoinStanding {
    match report.outcome {
        JoinOutcome::Ready => JoinStanding::Ready,
        JoinOutcome::Joining => JoinStanding::Joining,
        JoinOutcome::Failed => {
            let cause = report.cause().map(|finding| finding.reason.to_string());
            let offered = report.reasons.iter().filter(|one| is_of_offer(one));
            JoinStanding::Failed {
                cause: cause.unwrap_or_else(|| "an unnamed cause".to_owned()),
                offered: offered.cloned().collect(),
            }
        }
    }
}

/// What kubelet offers: the one thing of the GPUs that samples cannot show.
fn is_of_offer(finding: &Finding) -> bool {
    finding.reason == Reason::GpuAllocatableShort
}

/// Whether there is a Node to say it on: the join has seen it.
pub(super) fn is_registered(observed: &Observed) -> bool {
    let phases = observed.snapshot.join.iter().flat_map(|report| &report.phases);
    let passed = |state| matches!(state, PhaseState::Passed | PhaseState::Degraded);
    !observed.snapshot.hostname.is_empty()
        && phases.into_iter().any(|one| one.phase == Phase::Register && passed(one.state))
}

#[cfg(test)]
mod tests;
