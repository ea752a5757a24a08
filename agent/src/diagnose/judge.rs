//! What a look at a node means: one cause first. Pure.
//!
//! The verdicts are the join's own. What the join alone can find, because it ran something, is
//! taken from its report for those phases that a look cannot refute.

use std::time::Duration;

use contract::diagnosis::{Check, CheckState, JoinSays, SCHEMA};
use contract::join_report::{Agent, Instance, JoinOutcome};
use contract::verdict::rank;
use contract::{Diagnosis, Finding, Phase, PoolPolicy, Reason, Verdict};

use super::survey::{Survey, Timed};
use crate::host::clock;
use crate::phases::ready::Wanted;
use crate::phases::{
    bootstrap, cloud_init, cni, configure, drivers, identify, notices, preflight, ready, register,
};
use crate::pipeline::enforce::enforce;

/// What one phase's gate would answer now.
struct Gate {
    check: Check,
    findings: Vec<Finding>,
}

/// What a look at a node means.
#[must_use]
pub fn judge(survey: &Survey) -> Diagnosis {
    let config = survey.config();
    let gates = gates(survey);
    let mut findings: Vec<Finding> = gates.iter().flat_map(|gate| gate.findings.clone()).collect();
    findings.extend(agent_fault(survey));
    findings.extend(notices::findings(&survey.notices));
    findings.extend(notices::block_ends(config.capacity_ends.as_deref(), survey.now));
    findings.extend(only_the_join_knows(survey, &gates));
    let reasons = rank(findings);
    let document = survey.identify.facts.document.as_ref().ok();
    let says = |field: fn(&identify::Document) -> &String| document.map(field).cloned();
    let instance = Instance {
        id: says(|d| &d.instance_id).unwrap_or_default(),
        instance_type: says(|d| &d.instance_type).unwrap_or_default(),
        zone: says(|d| &d.availability_zone).unwrap_or_default(),
        name: survey.name.clone(),
    };
    let cluster = match (&survey.node_config, &survey.written.cluster) {
        (Some(config), _) => config.cluster.clone(),
        (None, Ok(cluster)) => cluster.name.clone(),
        (None, Err(_)) => config.cluster.clone(),
    };
    let fix = reasons.first().and_then(|cause| cause.reason.known());
    let fix = fix.map(|reason| reason.hint_for(&cluster, &config.pool, &instance.id));
    Diagnosis {
        schema: SCHEMA.into(),
        at: clock::spell(survey.now),
        ms: milliseconds(survey.took),
        fix,
        cluster,
        pool: config.pool,
        instance,
        agent: Agent { version: env!("CARGO_PKG_VERSION").into() },
        boot: survey.boot.clone(),
        uptime: survey.uptime.map(|uptime| uptime.as_secs()),
        outcome: outcome(survey, &gates, &reasons),
        reasons,
        gpus: survey.drivers.as_ref().map(|d| drivers::report(&d.facts, &survey.expected)),
        join: survey.join.as_ref().map(|report| JoinSays {
            outcome: report.outcome,
            attempt: report.attempt,
            updated: report.updated.clone(),
            reasons: report.reasons.clone(),
        }),
        notes: notes(survey),
        phases: gates.into_iter().map(|gate| gate.check).collect(),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn gates(survey: &Survey) -> Vec<Gate> {
    Phase::ALL.into_iter().map(|phase| gate(phase, survey)).collect()
}

fn gate(phase: Phase, survey: &Survey) -> Gate {
    match phase {
        Phase::Identify => decided(phase, survey, &survey.identify, identify::verdict),
        Phase::Configure => decided(phase, survey, &survey.configure, configure::verdict),
        // A look has no patience: what has to travel through EKS has had its time.
        Phase::Preflight => looked(phase, survey, survey.preflight.as_ref(), |facts| {
            preflight::verdict(facts, Duration::MAX)
        }),
        Phase::Drivers => gpus(survey),
        Phase::Bootstrap => bootstrap(survey),
        Phase::Cni => looked(phase, survey, survey.cni.as_ref(), cni::verdict),
        Phase::Register => register(survey),
        Phase::Ready => ready(survey),
    }
}

fn decided<F>(
    phase: Phase,
    survey: &Survey,
    seen: &Timed<F>,
    judge: impl Fn(&F) -> Verdict,
) -> Gate {
    of_verdict(phase, survey, judge(&seen.facts), seen.took)
}

/// A phase whose facts need the way to the cluster.
fn looked<F>(
    phase: Phase,
    survey: &Survey,
    seen: Option<&Timed<F>>,
    judge: impl Fn(&F) -> Verdict,
) -> Gate {
    match seen {
        Some(seen) => decided(phase, survey, seen, judge),
        None => unknown(phase, "nothing on the node names its cluster"),
    }
}

fn of_verdict(phase: Phase, survey: &Survey, verdict: Verdict, took: Duration) -> Gate {
    let (state, findings) = match enforce(verdict, phase, &survey.config(), &PoolPolicy::default())
    {
        Verdict::Pass => (CheckState::Passed, Vec::new()),
        Verdict::Degraded(findings) => (CheckState::Degraded, findings),
        Verdict::Wait(finding) => (CheckState::Waiting, vec![*finding]),
        Verdict::Fail(findings) => (CheckState::Failed, findings),
    };
    let detail = findings.first().map(|finding| finding.summary.clone());
    Gate { check: Check { phase, state, ms: milliseconds(took), detail }, findings }
}

fn unknown(phase: Phase, why: &str) -> Gate {
    let check = Check { phase, state: CheckState::Unknown, ms: 0, detail: Some(why.to_owned()) };
    Gate { check, findings: Vec::new() }
}

fn gpus(survey: &Survey) -> Gate {
    let phase = Phase::Drivers;
    match &survey.drivers {
        Some(seen) => {
            decided(phase, survey, seen, |facts| drivers::verdict(facts, &survey.expected))
        }
        None => {
            let detail = drivers::skipped(&survey.expected);
            let check = Check { phase, state: CheckState::Skipped, ms: 0, detail };
            Gate { check, findings: Vec::new() }
        }
    }
}

fn bootstrap(survey: &Survey) -> Gate {
    let phase = Phase::Bootstrap;
    let run = survey.units.config.clone();
    if run.is_none() && survey.written.cluster.is_err() && !survey.units.kubelet.is_active() {
        return unknown(phase, "nodeadm's config phase has not written anything yet");
    }
    let Some(asked) = &survey.node_config else {
        return unknown(phase, "there is no NodeConfig to compare the disk with");
    };
    let facts = bootstrap::Facts { run, ..survey.disk.clone() };
    of_verdict(phase, survey, bootstrap::verdict(&facts, asked), Duration::ZERO)
}

fn register(survey: &Survey) -> Gate {
    let phase = Phase::Register;
    let kubelet = &survey.units.kubelet;
    if !survey.is_admitted && !kubelet.is_active() {
        let verdict = cloud_init_verdict(survey);
        return match verdict {
            Verdict::Wait(_) => unknown(phase, "cloud-init still runs; kubelet starts after it"),
            Verdict::Fail(_) => of_verdict(phase, survey, verdict, Duration::ZERO),
            Verdict::Pass | Verdict::Degraded(_) => match survey.notices.warm_pool() {
                Some(state) => unknown(phase, &format!("put aside in the warm pool (`{state}`)")),
                None => unknown(phase, "kubelet has not been let in: a gate before is not open"),
            },
        };
    }
    let Some(node) = &survey.node else {
        return unknown(phase, "nothing on the node names its cluster");
    };
    let facts = register::Facts {
        run: match &survey.units.run {
            Some(run) => register::Progress::Ended(run.clone()),
            None => register::Progress::NotNeeded,
        },
        containerd: survey.units.containerd.clone(),
        kubelet: kubelet.clone(),
        log: survey.kubelet_log.clone(),
        node: node.facts.clone(),
    };
    // A look has no patience here either.
    let verdict = register::verdict(&facts, &survey.name, &survey.boot, Duration::MAX);
    of_verdict(phase, survey, verdict, node.took)
}

fn cloud_init_verdict(survey: &Survey) -> Verdict {
    let facts = cloud_init::Facts::of(survey.units.cloud_final.clone(), survey.uptime);
    let limit = survey.config().deadlines.cloud_init();
    cloud_init::verdict(&facts, limit, survey.uptime.is_some_and(|uptime| uptime >= limit))
}

fn ready(survey: &Survey) -> Gate {
    let phase = Phase::Ready;
    let Some(node) = survey.node.as_ref().filter(|node| matches!(node.facts, Ok(Some(_)))) else {
        return unknown(phase, "there is no Node object to look at");
    };
    let devices = survey.drivers.as_ref().map(|survey| survey.facts.devices());
    let devices = devices.unwrap_or_default();
    let wanted = Wanted { devices, offer: survey.config().gpu_offer };
    let facts =
        ready::Facts { slices: survey.slices.clone(), ..ready::Facts::of(node.facts.clone()) };
    let verdict = ready::verdict(&facts, wanted);
    of_verdict(phase, survey, verdict, node.took)
}

/// The agent's own unit, when PID 1 has given it up.
fn agent_fault(survey: &Survey) -> Option<Finding> {
    let join = &survey.units.join;
    if join.active != "failed" {
        return None;
    }
    let phase = survey.join.as_ref().and_then(contract::JoinReport::current_phase);
    let summary = format!("`{}` has failed ({})", contract::names::UNIT_JOIN, join.result);
    let finding = Finding::new(Reason::AgentFault, phase.unwrap_or(Phase::Identify), summary);
    Some(survey.units.join_log.iter().fold(finding, |f, line| f.with_evidence(line.clone())))
}

/// What the join has found in this boot by doing something, where a look could neither confirm nor
/// refute it.
fn only_the_join_knows(survey: &Survey, gates: &[Gate]) -> Vec<Finding> {
    let is_open = |phase: Option<Phase>| {
        phase.is_none_or(|phase| {
            let gate = gates.iter().find(|gate| gate.check.phase == phase);
            gate.is_none_or(|gate| gate.check.state == CheckState::Unknown)
        })
    };
    let reasons = survey.join.iter().flat_map(|report| &report.reasons);
    reasons.filter(|finding| is_open(finding.phase)).cloned().collect()
}

fn outcome(survey: &Survey, gates: &[Gate], reasons: &[Finding]) -> JoinOutcome {
    let is = |state: CheckState| gates.iter().any(|gate| gate.check.state == state);
    let is_under_way =
        survey.join.as_ref().is_some_and(|report| report.outcome == JoinOutcome::Joining);
    let waits = is(CheckState::Waiting);
    let is_hard =
        reasons.iter().any(|finding| finding.reason.is_hard() && !is_observed(gates, finding));
    if is(CheckState::Failed) || (waits && !is_under_way) || (is_hard && !waits) {
        return JoinOutcome::Failed;
    }
    let last = gates.last().map(|gate| gate.check.state);
    match last {
        Some(CheckState::Passed | CheckState::Degraded) if !waits => JoinOutcome::Ready,
        _ => JoinOutcome::Joining,
    }
}

/// Whether a finding stands behind an open gate: the pool only observes it.
fn is_observed(gates: &[Gate], finding: &Finding) -> bool {
    gates
        .iter()
        .any(|gate| gate.check.state == CheckState::Degraded && gate.findings.contains(finding))
}

fn notes(survey: &Survey) -> Vec<String> {
    let mut notes = Vec::new();
    if !survey.is_root {
        notes.push("not run as root: what only root may read is missing".to_owned());
    }
    let join = &survey.units.join;
    if survey.join.is_none() {
        notes.push(match join.load.as_str() {
            "" => "PID 1 was not reached, and the join has left no report in this boot".into(),
            "not-found" => "`rollcall-join.service` is not installed".into(),
            _ => format!("the join has left no report in this boot; its unit is {}", join.active),
        });
    } else if !matches!(join.active.as_str(), "active" | "activating" | "failed" | "") {
        notes.push(format!("the join does not run now; its unit is {}", join.active));
    }
    if survey.units.kubelet.is_active() && !survey.is_admitted {
        notes
            .push("kubelet runs, and no gate has let it in: it was not started by the join".into());
    }
    notes
}

#[cfg(test)]
mod tests;
