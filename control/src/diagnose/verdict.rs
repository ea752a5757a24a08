//! The verdict on one node: how far it is, whether it is decided, and the causes. Pure.
//!
//! A node that has a named hard cause is Failed even while its agent goes on proving: a gate need not
//! wait for it. What can still come is Joining until its deadline has passed.

use std::time::Duration;

use contract::agent_config::GpuOffer;
use contract::join_report::JoinOutcome;
use contract::names::{CONDITION_ACCELERATED_HARDWARE, RESOURCE_GPU};
use contract::offer::Offered;
use contract::verdict::rank;
use contract::{Finding, Phase, Reason, ReasonName};
use jiff::Timestamp;

use super::facts::{Author, Known, NodeEvidence, NodeState, ReportFacts, Stage};
use crate::kube::{ConditionFacts, NodeFacts};

/// From launch to registration, which is the agent's own deadline: Karpenter gives up at 900 s.
const REGISTRATION: Duration = Duration::from_secs(600);
/// From launch to the first sign on the console.
const BOOT: Duration = Duration::from_secs(300);

/// What is concluded of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Conclusion {
    /// How far it has come.
    pub stage: Stage,
    /// Whether a gate may go on, and how.
    pub state: NodeState,
    /// The phase that its join is in, when one says so.
    pub phase: Option<Phase>,
    /// Causes, the first one first.
    pub reasons: Vec<Finding>,
}

/// Judges one node.
#[must_use]
pub fn conclude(evidence: &NodeEvidence, now: Timestamp) -> Conclusion {
    if !evidence.instance.is_live() || evidence.instance.state.starts_with("stop") {
        return gone(evidence);
    }
    match evidence.node.present() {
        Some(node) => registered(evidence, node, now),
        None => unregistered(evidence, now),
    }
}

/// The report, when it is to be believed and is about the node as it stands.
#[must_use]
pub fn believed_report(evidence: &NodeEvidence) -> Option<&ReportFacts> {
    let report = evidence.report.present()?;
    if matches!(report.author, Author::Other(_)) {
        return None;
    }
    let registered = evidence.node.present().and_then(|node| node.created.as_deref());
    let before_kubelet =
        report.report.cause().and_then(|f| f.phase).is_some_and(Phase::is_before_kubelet);
    // kubelet cannot have started while a gate before it was closed: the node has healed since.
    let healed =
        before_kubelet && registered.is_some_and(|at| is_after(at, &report.report.updated));
    (!healed).then_some(report)
}

fn is_after(at: &str, other: &str) -> bool {
    match (at.parse::<Timestamp>(), other.parse::<Timestamp>()) {
        (Ok(at), Ok(other)) => at >= other,
        _ => false,
    }
}

fn gone(evidence: &NodeEvidence) -> Conclusion {
    let instance = &evidence.instance;
    let why = instance.state_reason.as_deref().unwrap_or("EC2 gives no reason");
    let mut reasons = reported(evidence).1;
    reasons.push(outside(
        Reason::InstanceTerminated,
        format!("the instance is {}: {why}", instance.state),
    ));
    Conclusion { stage: Stage::Gone, state: NodeState::Failed, phase: None, reasons: rank(reasons) }
}

fn registered(evidence: &NodeEvidence, node: &NodeFacts, now: Timestamp) -> Conclusion {
    // Tag and console speak of the time before kubelet, and may be late in being renewed.
    let (phase, mut reasons) = believed_report(evidence).map(said_by).unwrap_or_default();
    let expected = evidence.gpus_expected.unwrap_or(0);
    let hardware = evidence.hardware();
    let stage = if !node.is_ready() {
        Stage::NotReady
    } else if expected == 0
        || (hardware.is_some_and(ConditionFacts::is_true) && evidence.offers_all())
    {
        Stage::Proven
    } else {
        Stage::WithoutGpus
    };
    if stage == Stage::Proven {
        // A report that outlives the trouble is only late in being deleted.
        return Conclusion { stage, state: NodeState::Ready, phase: None, reasons: Vec::new() };
    }
    if let Some(condition) = hardware.filter(|condition| condition.status == "False") {
        reasons.push(hardware_finding(condition));
    }
    let since_registered = node.created.as_deref().and_then(|at| age(at.parse().ok()?, now));
    if since_registered.is_none_or(|age| age > Phase::Ready.cap()) {
        reasons.extend(overdue(stage, evidence, node, expected));
    }
    conclusion(stage, phase.or(Some(Phase::Ready)), reasons)
}

/// What a registered node still lacks when its time is up.
fn overdue(stage: Stage, evidence: &NodeEvidence, node: &NodeFacts, expected: u32) -> Vec<Finding> {
    if stage == Stage::NotReady {
        let (status, message) = node
            .condition("Ready")
            .map_or(("absent", "no condition"), |c| (c.status.as_str(), c.message.as_str()));
        let reason = if message.contains("NetworkPluginNotReady") || message.contains("cni plugin")
        {
            Reason::CniNotReady
        } else {
            Reason::NodeNotReady
        };
        let summary = format!("Ready is {status}: {message}");
        return vec![Finding::new(reason, Phase::Ready, summary)];
    }
    let what = match evidence.instance.offer {
        GpuOffer::Dra => "GPU in a ResourceSlice",
        GpuOffer::DevicePlugin | GpuOffer::None => RESOURCE_GPU,
    };
    match evidence.offered() {
        // Slices that cannot be read are no sign that there are none, nor are MIG devices that nobody counts.
        Known::Unknown(_) => Vec::new(),
        Known::Known(None) if !evidence.offers_all() => vec![Finding::new(
            Reason::DevicePluginAbsent,
            Phase::Ready,
            format!("the node is Ready and offers no {what} (expected {expected})"),
        )],
        Known::Known(Some(Offered { offered, wanted })) if offered < wanted => vec![Finding::new(
            Reason::GpuAllocatableShort,
            Phase::Ready,
            format!("{offered} of {wanted} {} are on offer", evidence.unit()),
        )],
        Known::Known(_) => vec![outside(
            Reason::AgentSilent,
            format!(
                "{}, and no agent says that they work: condition {} is not True",
                match evidence.instance.offer {
                    GpuOffer::None => "the node is Ready with its GPUs",
                    GpuOffer::DevicePlugin | GpuOffer::Dra => "all GPUs are on offer",
                },
                CONDITION_ACCELERATED_HARDWARE
            ),
        )],
    }
}

fn unregistered(evidence: &NodeEvidence, now: Timestamp) -> Conclusion {
    let (phase, mut reasons) = reported(evidence);
    let console = evidence.console.present();
    let spoke = phase.is_some() || !reasons.is_empty();
    let stage = match phase {
        Some(phase) if !phase.is_before_kubelet() => Stage::NotRegistered,
        Some(_) => Stage::NotBootstrapped,
        None if !spoke && evidence.node.why_unknown().is_some() => Stage::Unknown,
        None if spoke || console.is_some_and(|console| console.booted) => Stage::NotBootstrapped,
        None => Stage::NeverBooted,
    };
    let up = age(evidence.instance.launched, now).unwrap_or_default();
    if reasons.is_empty() {
        let minutes = up.as_secs() / 60;
        // An unread console is no sign that it is empty, nor an unread node list that none is there.
        let silence = console.filter(|console| !console.booted && up > BOOT).map(|_| {
            outside(Reason::NeverBooted, format!("{minutes} min up, and its console is empty"))
        });
        let late = (up > REGISTRATION && evidence.node.is_absent()).then(|| match phase {
            Some(phase) => Finding::new(
                Reason::DeadlineExceeded,
                phase,
                format!("{minutes} min after its launch the join is still in {phase}"),
            ),
            None => outside(
                Reason::AgentSilent,
                format!("{minutes} min up, and neither report, tag nor console line is there"),
            ),
        });
        reasons.extend(silence.or(late));
    }
    conclusion(stage, phase, reasons)
}

fn conclusion(stage: Stage, phase: Option<Phase>, reasons: Vec<Finding>) -> Conclusion {
    let reasons = rank(reasons);
    let failed = reasons.iter().any(|finding| finding.reason.is_hard());
    let state = if failed { NodeState::Failed } else { NodeState::Joining };
    Conclusion { stage, state, phase, reasons }
}

/// What the node says of itself: by its report, else by its console, else by its tag.
fn reported(evidence: &NodeEvidence) -> (Option<Phase>, Vec<Finding>) {
    if let Some(facts) = believed_report(evidence) {
        return said_by(facts);
    }
    if let Some(line) = evidence.console.present().and_then(|console| console.line.as_ref()) {
        let findings = line.reasons.iter().enumerate().map(|(index, reason)| Finding {
            reason: reason.clone(),
            phase: line.phase,
            summary: if index == 0 { line.summary.clone() } else { String::new() },
            evidence: Vec::new(),
        });
        let failed = line.outcome == JoinOutcome::Failed;
        return (line.phase, if failed { findings.collect() } else { Vec::new() });
    }
    (None, evidence.instance.join_tag.as_deref().and_then(tag_finding).into_iter().collect())
}

fn said_by(facts: &ReportFacts) -> (Option<Phase>, Vec<Finding>) {
    let report = &facts.report;
    let ready = report.outcome == JoinOutcome::Ready;
    (report.current_phase(), if ready { Vec::new() } else { report.reasons.clone() })
}

/// A tag says `<outcome> <Reason>` and no more.
fn tag_finding(tag: &str) -> Option<Finding> {
    let reason: Reason = tag.strip_prefix("failed ")?.split_whitespace().next()?.parse().ok()?;
    Some(Finding {
        reason: reason.into(),
        phase: None,
        summary: reason.entry().meaning.trim_end_matches('.').to_owned(),
        evidence: Vec::new(),
    })
}

/// Our own reason stands in the condition's message; its reason is eks-node-monitoring-agent's word.
fn hardware_finding(condition: &ConditionFacts) -> Finding {
    let ours = condition
        .message
        .split(|c: char| !c.is_ascii_alphanumeric())
        .find_map(|word| word.parse::<Reason>().ok());
    let foreign = || {
        serde_json::from_value(condition.reason.clone().into())
            .unwrap_or_else(|_| ReasonName::from(Reason::NodeNotReady))
    };
    let message = condition.message.as_str();
    let summary = ours.and_then(|ours| message.strip_prefix(ours.name())?.strip_prefix(": "));
    Finding {
        reason: ours.map_or_else(foreign, ReasonName::from),
        phase: Some(Phase::Drivers),
        summary: summary.unwrap_or(message).to_owned(),
        evidence: Vec::new(),
    }
}

fn outside(reason: Reason, summary: String) -> Finding {
    Finding { reason: reason.into(), phase: None, summary, evidence: Vec::new() }
}

fn age(since: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(now.duration_since(since)).ok()
}

#[cfg(test)]
mod tests;
