//! What is written, under which type, and when its transition time moves.

use serde_json::json;

use super::*;
use crate::watch::health::Status;

const KIND: &str = names::CONDITION_ACCELERATED_HARDWARE;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn says(status: Status, message: &str) -> Standing {
    Standing { status, reason: "R".into(), message: message.into(), since: Duration::ZERO }
}

#[test]
fn the_transition_time_moves_with_the_status_alone() {
    let now = at("2026-11-20T20:00:00.4Z");
    let first = plan(None, KIND, &says(Status::True, "a"), now).unwrap();
    assert_eq!(first.last_transition_time.as_deref(), Some("2026-11-20T20:00:00Z"));

    let now = at("2026-11-20T20:01:00Z");
    assert_eq!(plan(Some(&first), KIND, &says(Status::True, "a"), now), None, "nothing to say");

    let second = plan(Some(&first), KIND, &says(Status::True, "b"), now).unwrap();
    assert_eq!(second.last_transition_time, first.last_transition_time);
    assert_eq!(second.last_heartbeat_time.as_deref(), Some("2026-11-20T20:01:00Z"));

    let now = at("2026-11-20T20:02:00Z");
    let third = plan(Some(&second), KIND, &says(Status::False, "b"), now).unwrap();
    assert_eq!(third.last_transition_time.as_deref(), Some("2026-11-20T20:02:00Z"));
}

#[test]
fn an_unchanged_condition_is_confirmed_every_five_minutes() {
    let says = says(Status::True, "a");
    let first = plan(None, KIND, &says, at("2026-11-20T20:00:00Z")).unwrap();
    assert_eq!(plan(Some(&first), KIND, &says, at("2026-11-20T20:04:59Z")), None);
    let later = plan(Some(&first), KIND, &says, at("2026-11-20T20:05:00Z")).unwrap();
    assert_eq!(later.last_transition_time, first.last_transition_time);
    assert_eq!(later.last_heartbeat_time.as_deref(), Some("2026-11-20T20:05:00Z"));
}

#[test]
fn ours_is_found_among_the_nodes_conditions() {
    let node = json!({"status": {"conditions": [
        {"type": "Ready", "status": "True"},
        {"type": "AcceleratedHardwareReady", "status": "False", "reason": "NvidiaXID79Error",
         "message": "m", "lastTransitionTime": "2026-11-20T20:00:00Z"},
    ]}});
    let condition = existing(&node, KIND).unwrap();
    assert_eq!((condition.status.as_str(), condition.last_heartbeat_time), ("False", None));
    assert_eq!(existing(&node, "GpuNodeHealthy"), None);
    assert_eq!(existing(&json!({"status": {}}), KIND), None);
}

fn managed(manager: &str, kind: &str) -> Value {
    let key = format!("k:{{\"type\":\"{kind}\"}}");
    json!({"metadata": {"managedFields": [
        {"manager": "kubelet", "operation": "Update", "subresource": "status",
         "fieldsV1": {"f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {"f:status": {}}}}}},
        {"manager": manager, "operation": "Update", "subresource": "status",
         "fieldsV1": {"f:status": {"f:conditions": {key: {".": {}, "f:status": {}}}}}},
    ]}})
}

#[test]
fn a_condition_has_one_writer() {
    let (ours, own) = (names::CONDITION_ACCELERATED_HARDWARE, names::CONDITION_GPU_NODE_HEALTHY);
    let theirs = managed("eks-node-monitoring-agent", ours);
    for (node, monitor, expected, why) in [
        (json!({}), Monitor::Absent, ours, "nobody else"),
        (json!({}), Monitor::Unknown, ours, "nobody else, as far as we may know"),
        (json!({}), Monitor::Runs, own, "it runs, and will write"),
        (theirs.clone(), Monitor::Unknown, own, "it has written"),
        (theirs, Monitor::Absent, ours, "it wrote and is gone: nobody would keep it true"),
        (managed(FIELD_MANAGER, ours), Monitor::Unknown, ours, "we have written"),
        (managed("somebody", "KernelReady"), Monitor::Unknown, ours, "another condition"),
    ] {
        assert_eq!(kind(&node, monitor), expected, "{why}");
    }
    assert_eq!(monitor(None), Monitor::Absent);
    assert_eq!(monitor(Some(&json!({"status": {"desiredNumberScheduled": 0}}))), Monitor::Absent);
    assert_eq!(monitor(Some(&json!({"status": {"desiredNumberScheduled": 3}}))), Monitor::Runs);
    assert_eq!(monitor(Some(&json!({"metadata": {}}))), Monitor::Runs);
}
