//! The Node condition: what has to be written, under which type, and when. Pure.
//!
//! Its transition time moves only when the status does, because that is what the repairers measure.

use std::time::Duration;

use contract::names;
use jiff::Timestamp;
use serde_json::Value;

use super::health::Standing;
use crate::kube::Condition;

/// How often an unchanged condition is confirmed.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(300);
/// Whose fields they are, in the Node's `managedFields`.
pub(super) const FIELD_MANAGER: &str = "rollcall-agent";
/// The DaemonSet of eks-node-monitoring-agent, whose condition it is where it runs.
pub(super) const NODE_MONITORING_AGENT: &str = "eks-node-monitoring-agent";

/// What the cluster says of eks-node-monitoring-agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Monitor {
    /// It runs, or is meant to, on some node.
    Runs,
    /// There is none.
    Absent,
    /// We may not know.
    Unknown,
}

/// What its DaemonSet says.
pub(super) fn monitor(daemonset: Option<&Value>) -> Monitor {
    match daemonset {
        None => Monitor::Absent,
        Some(daemonset) => {
            let wanted = daemonset["status"]["desiredNumberScheduled"].as_u64();
            if wanted == Some(0) { Monitor::Absent } else { Monitor::Runs }
        }
    }
}

/// The type that we publish under: two writers of one condition would undo each other for ever.
pub(super) fn kind(node: &Value, monitor: Monitor) -> &'static str {
    let is_theirs = match monitor {
        Monitor::Runs => true,
        // What it left behind when it went is taken over.
        Monitor::Absent => false,
        Monitor::Unknown => is_managed_by_another(node),
    };
    if is_theirs {
        names::CONDITION_GPU_NODE_HEALTHY
    } else {
        names::CONDITION_ACCELERATED_HARDWARE
    }
}

/// Whether somebody else has written the condition that repairers read.
fn is_managed_by_another(node: &Value) -> bool {
    let key = format!("k:{{\"type\":\"{}\"}}", names::CONDITION_ACCELERATED_HARDWARE);
    let entries = node["metadata"]["managedFields"].as_array();
    entries.into_iter().flatten().any(|entry| {
        entry["manager"] != FIELD_MANAGER
            && !entry["fieldsV1"]["f:status"]["f:conditions"][&key]["f:status"].is_null()
    })
}

/// The condition of this type as the Node has it.
pub(super) fn existing(node: &Value, kind: &str) -> Option<Condition> {
    let conditions = node["status"]["conditions"].as_array()?;
    let ours = conditions.iter().find(|one| one["type"] == kind)?;
    serde_json::from_value(ours.clone()).ok()
}

/// Whether both say the same.
pub(super) fn is_same(one: &Standing, other: &Standing) -> bool {
    one.status == other.status && one.reason == other.reason && one.message == other.message
}

/// What has to be written, given what the Node has; none when it says so already and has been
/// confirmed lately.
pub(super) fn plan(
    existing: Option<&Condition>,
    kind: &str,
    standing: &Standing,
    now: Timestamp,
) -> Option<Condition> {
    let spelled = spell(now);
    let status = standing.status.name();
    let same = |condition: &Condition| {
        condition.status == status
            && condition.reason == standing.reason
            && condition.message == standing.message
    };
    let confirmed = |condition: &Condition| {
        let at = condition.last_heartbeat_time.as_deref().and_then(|text| text.parse().ok());
        at.is_some_and(|at: Timestamp| {
            Duration::try_from(now.duration_since(at)).is_ok_and(|age| age < HEARTBEAT)
        })
    };
    if existing.is_some_and(|condition| same(condition) && confirmed(condition)) {
        return None;
    }
    let since = existing
        .filter(|condition| condition.status == status)
        .and_then(|condition| condition.last_transition_time.clone());
    Some(Condition {
        kind: kind.to_owned(),
        status: status.to_owned(),
        reason: standing.reason.clone(),
        message: standing.message.clone(),
        last_heartbeat_time: Some(spelled.clone()),
        last_transition_time: Some(since.unwrap_or(spelled)),
    })
}

/// Kubernetes takes no fractions of a second.
pub(super) fn spell(at: Timestamp) -> String {
    format!("{at:.0}")
}

#[cfg(test)]
mod tests;
