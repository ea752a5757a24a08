//! From evidence to one cause: pure. Each rule looks at one channel and names candidates; what
//! another candidate explains is dropped, and its evidence moves to the cause.

use contract::agent_config::GpuOffer;
use contract::join_report::{JoinOutcome, PhaseState};
use contract::offer::Offered;
use contract::{Finding, Phase, Reason, ReasonName};
use jiff::Timestamp;
use serde::Serialize;

use super::facts::{Author, Known, NodeState, Stage};
use super::gather::{Evidence, StatusChecks};
use super::verdict::{self, Conclusion};
use crate::kube::NodeFacts;

/// How sure a cause is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// The node, or AWS, says so itself.
    Certain,
    /// The evidence fits, and nothing speaks against it.
    Likely,
    /// Nothing better is known.
    Possible,
}

impl Confidence {
    /// The word on every screen.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Certain => "certain",
            Self::Likely => "likely",
            Self::Possible => "possible",
        }
    }
}

/// One possible cause.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// The cause.
    pub reason: ReasonName,
    /// How sure.
    pub confidence: Confidence,
    /// One sentence with the values that matter.
    pub summary: String,
    /// The phase whose gate named it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
}

/// One observation and the channel it came through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Observation {
    /// `report`, `console`, `ec2`, …
    pub source: &'static str,
    /// What was seen.
    pub text: String,
}

/// One phase on the timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// Which.
    pub phase: Phase,
    /// How it stands; none when it has not begun.
    pub state: Option<PhaseState>,
    /// How long it took.
    pub ms: Option<u64>,
}

/// The diagnosis of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// How far it has come, and the gates' verdict.
    pub conclusion: Conclusion,
    /// Possible causes, the cause first; empty for a node that lacks nothing.
    pub candidates: Vec<Candidate>,
    /// What was seen, source by source, and what could not be.
    pub evidence: Vec<Observation>,
    /// The phases of its join, when a report tells of them.
    pub timeline: Vec<Mark>,
}

/// Diagnoses one node.
#[must_use]
pub fn diagnose(evidence: &Evidence, now: Timestamp) -> Diagnosis {
    let mut node = evidence.node.clone();
    if node.console.present().is_none() {
        node.console = match &evidence.console {
            Known::Known(console) => Known::Known(Some(console.clone())),
            Known::Unknown(why) => Known::Unknown(why.clone()),
        };
    }
    let conclusion = verdict::conclude(&node, now);
    let candidates = if conclusion.state == NodeState::Ready {
        Vec::new()
    } else {
        rank(candidates(evidence, &conclusion))
    };
    Diagnosis {
        candidates,
        evidence: observations(evidence, &conclusion, now),
        timeline: timeline(evidence),
        conclusion,
    }
}

fn candidates(evidence: &Evidence, conclusion: &Conclusion) -> Vec<Candidate> {
    let mut found = Vec::new();
    found.extend(named_by_the_node(evidence, conclusion));
    found.extend(from_access(evidence, conclusion));
    found.extend(from_checks(evidence));
    found.extend(from_pool(evidence));
    found
}

/// What the node says itself, and what its silence says.
fn named_by_the_node(evidence: &Evidence, conclusion: &Conclusion) -> Vec<Candidate> {
    let authenticated = verdict::believed_report(&evidence.node).map(|report| &report.author);
    let of = |finding: &Finding| {
        let confidence = match (finding.reason.known(), authenticated) {
            (Some(Reason::NeverBooted), _) => Confidence::Likely,
            (Some(Reason::AgentSilent | Reason::DeadlineExceeded), _) => Confidence::Possible,
            (_, Some(Author::Unrecorded)) => Confidence::Likely,
            _ => Confidence::Certain,
        };
        Candidate {
            reason: finding.reason.clone(),
            confidence,
            summary: finding.summary.clone(),
            phase: finding.phase,
        }
    };
    conclusion.reasons.iter().map(of).collect()
}

/// A role without a right entry is 401 for kubelet; before that it may simply not be in use yet.
fn from_access(evidence: &Evidence, conclusion: &Conclusion) -> Option<Candidate> {
    let access = evidence.access.get()?;
    if evidence.node.node.present().is_some_and(NodeFacts::is_ready) {
        return None;
    }
    // While it still hopes for an entry, the console's line says what it waits for.
    let console = evidence.console.get().and_then(|console| console.line.as_ref());
    let named = conclusion.reasons.iter().map(|finding| &finding.reason);
    let mut named = named.chain(console.iter().flat_map(|line| &line.reasons));
    let refused = named.any(|reason| *reason == Reason::ApiServerUnauthorized);
    let confidence = if refused { Confidence::Certain } else { Confidence::Likely };
    match access.entry.as_deref() {
        None => Some(outside(
            Reason::AccessEntryMissing,
            confidence,
            format!("the cluster has no access entry for `{}`", access.role),
        )),
        Some(_) => None,
    }
}

fn from_checks(evidence: &Evidence) -> Option<Candidate> {
    let checks = evidence.checks.present()?;
    let impaired = checks.system == "impaired" || checks.instance == "impaired";
    impaired.then(|| {
        outside(
            Reason::NeverBooted,
            Confidence::Likely,
            format!("status checks: host {}, instance {}", checks.system, checks.instance),
        )
    })
}

fn from_pool(evidence: &Evidence) -> Option<Candidate> {
    let pool = evidence.pool.present()?;
    pool.status.ends_with("_FAILED").then(|| {
        let issue = pool.issues.first().map_or("EKS names no issue", String::as_str);
        outside(
            Reason::NodeGroupCreateFailed,
            Confidence::Possible,
            format!("node group `{}` is {}: {issue}", pool.name, pool.status),
        )
    })
}

fn outside(reason: Reason, confidence: Confidence, summary: String) -> Candidate {
    Candidate { reason: reason.into(), confidence, summary, phase: None }
}

/// The cause first: what another candidate explains goes, surer before less sure, hard before soft,
/// earlier before later.
fn rank(mut found: Vec<Candidate>) -> Vec<Candidate> {
    let present: Vec<Reason> = found.iter().filter_map(|c| c.reason.known()).collect();
    found.retain(|candidate| {
        let Some(reason) = candidate.reason.known() else { return true };
        !present.iter().any(|other| *other != reason && other.explains(reason))
    });
    found.sort_by_key(|c| (!c.reason.is_hard(), c.confidence, c.phase.is_none(), c.phase));
    let mut seen = Vec::new();
    found.retain(|candidate| {
        let new = !seen.contains(&candidate.reason);
        seen.push(candidate.reason.clone());
        new
    });
    found
}

fn timeline(evidence: &Evidence) -> Vec<Mark> {
    let Some(report) = verdict::believed_report(&evidence.node) else { return Vec::new() };
    let of = |phase| report.report.phases.iter().find(move |p| p.phase == phase);
    Phase::ALL
        .into_iter()
        .map(|phase| Mark { phase, state: of(phase).map(|p| p.state), ms: of(phase).map(|p| p.ms) })
        .collect()
}

fn observations(evidence: &Evidence, conclusion: &Conclusion, now: Timestamp) -> Vec<Observation> {
    let mut seen = Vec::new();
    let mut add = |source, text: String| seen.push(Observation { source, text });
    report_lines(evidence, &mut add);
    console_lines(evidence, &mut add);
    ec2_lines(evidence, now, &mut add);
    pool_lines(evidence, &mut add);
    access_lines(evidence, &mut add);
    kubernetes_lines(evidence, conclusion, &mut add);
    seen
}

fn report_lines(evidence: &Evidence, add: &mut impl FnMut(&'static str, String)) {
    let facts = match &evidence.node.report {
        Known::Unknown(why) => return add("ssm", why.clone()),
        Known::Known(None) => return add("ssm", "none in Parameter Store".into()),
        Known::Known(Some(facts)) => facts,
    };
    let report = &facts.report;
    match &facts.author {
        Author::Other(arn) => {
            return add("ssm", format!("not believed: it was written by `{arn}`"));
        }
        Author::Unrecorded => add("ssm", "Parameter Store does not say who wrote it".into()),
        Author::Itself => {}
    }
    let stands = match (report.outcome, report.current_phase()) {
        (JoinOutcome::Failed, Some(phase)) => format!("failed in {phase}"),
        (outcome, _) => outcome.label().to_owned(),
    };
    add("ssm", format!("{stands}, attempt {}, written {}", report.attempt, report.updated));
    for text in report.reasons.iter().flat_map(|finding| &finding.evidence) {
        add("ssm", text.clone());
    }
    if let Some(gpus) = &report.gpus {
        let layers = [
            ("expected", gpus.expected),
            ("PCI", gpus.pci),
            ("device nodes", gpus.device_nodes),
            ("NVML", gpus.nvml),
        ];
        let known: Vec<String> =
            layers.iter().filter_map(|(layer, n)| Some(format!("{layer} {}", (*n)?))).collect();
        if !known.is_empty() {
            add("ssm", format!("GPUs: {}", known.join(", ")));
        }
    }
}

fn console_lines(evidence: &Evidence, add: &mut impl FnMut(&'static str, String)) {
    match &evidence.console {
        Known::Unknown(why) => add("console", why.clone()),
        Known::Known(console) => match &console.line {
            Some(line) => {
                let reasons: Vec<&str> = line.reasons.iter().map(ReasonName::as_str).collect();
                let named = match reasons.as_slice() {
                    [] => String::new(),
                    reasons => format!(": {}", reasons.join(", ")),
                };
                add("console", format!("{} at {}{named}", line.outcome.label(), line.at));
            }
            None if console.booted => {
                let last = console.tail.last().map_or("", String::as_str);
                add("console", format!("no line of the agent; the last one is `{last}`"));
            }
            None => add("console", "empty".into()),
        },
    }
}

fn ec2_lines(evidence: &Evidence, now: Timestamp, add: &mut impl FnMut(&'static str, String)) {
    let instance = &evidence.node.instance;
    let up = now.duration_since(instance.launched).as_secs().max(0);
    let mut text = format!("{}, launched {} ago", instance.state, minutes(up));
    match &evidence.checks {
        Known::Known(Some(checks)) if instance.state == "running" => {
            let StatusChecks { system, instance } = checks;
            text += &format!("; status checks: host {system}, instance {instance}");
        }
        Known::Known(_) => {}
        Known::Unknown(why) => add("ec2", why.clone()),
    }
    if let Some(why) = &instance.state_reason {
        text += &format!("; {why}");
    }
    add("ec2", text);
    if let Some(tag) = &instance.join_tag {
        add("ec2", format!("tag {}: {tag}", contract::names::TAG_JOIN));
    }
}

fn pool_lines(evidence: &Evidence, add: &mut impl FnMut(&'static str, String)) {
    match &evidence.pool {
        Known::Unknown(why) => return add("node group", why.clone()),
        Known::Known(None) => add("node group", "none of the pool's name".into()),
        Known::Known(Some(pool)) => {
            let health = match pool.issues.first() {
                Some(issue) => issue.as_str(),
                None => "no health issue",
            };
            add("node group", format!("`{}` is {}; {health}", pool.name, pool.status));
        }
    }
    match &evidence.activities {
        Known::Unknown(why) => add("scaling", why.clone()),
        Known::Known(activities) => {
            if let Some(activity) = activities.first() {
                add("scaling", format!("{}: {}", activity.status, activity.message));
            }
        }
    }
}

fn access_lines(evidence: &Evidence, add: &mut impl FnMut(&'static str, String)) {
    match &evidence.access {
        Known::Unknown(why) => add("access", why.clone()),
        Known::Known(access) => {
            let role = access.role.rsplit('/').next().unwrap_or_default();
            match &access.entry {
                Some(kind) => add("access", format!("role `{role}` has an entry of type {kind}")),
                None => add("access", format!("role `{role}` has no access entry")),
            }
        }
    }
}

fn kubernetes_lines(
    evidence: &Evidence,
    conclusion: &Conclusion,
    add: &mut impl FnMut(&'static str, String),
) {
    let node = match &evidence.node.node {
        Known::Unknown(why) => return add("kubernetes", why.clone()),
        Known::Known(None) => {
            let held = conclusion.stage == Stage::NotBootstrapped
                && conclusion.state == NodeState::Failed
                && conclusion.phase.is_some();
            let held = if held { ": kubelet is held until the gates before it pass" } else { "" };
            return add("kubernetes", format!("no Node object{held}"));
        }
        Known::Known(Some(node)) => node,
    };
    for kind in ["Ready", "AcceleratedHardwareReady", "GpuNodeHealthy"] {
        if let Some(condition) = node.condition(kind) {
            let message = &condition.message;
            add(
                "kubernetes",
                format!("{kind} is {} ({}): {message}", condition.status, condition.reason),
            );
        }
    }
    let expected = evidence.node.gpus_expected.unwrap_or_default();
    if expected > 0 && evidence.node.instance.offer != GpuOffer::None {
        let line = match evidence.node.offered() {
            Known::Known(Some(Offered { offered, wanted })) => {
                format!("{offered} of {wanted} {} on offer", evidence.node.unit())
            }
            Known::Known(None) => format!("0 of {expected} GPUs on offer"),
            Known::Unknown(why) => format!("GPUs on offer are not known: {why}"),
        };
        add("kubernetes", line);
    }
    match &evidence.events {
        Known::Unknown(why) => add("kubernetes", why.clone()),
        Known::Known(events) => {
            if let Some(event) = events.iter().rev().find(|event| event.kind == "Warning") {
                add("kubernetes", format!("event {}: {}", event.reason, event.message));
            }
        }
    }
}

/// `42s`, `3m12s`, `2h05m`.
#[must_use]
pub fn minutes(seconds: i64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests;
