//! Node lifecycle: silence becomes `Unknown`, conditions become taints, and what the cloud knows of an
//! instance reaches its Node; a terminated instance's Node goes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::admission::NOT_READY;
use super::super::metadata::now_seconds;
use super::super::registry::{LEASES, NODES, PODS};
use super::super::store::Store;
use super::{amend, node_objects, remove};
use crate::kubernetes::cloud::{self, Errand};
use crate::kubernetes::view::{condition, is_ready};
use crate::kubernetes::world::Instance;

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// When each node was last heard of, by our own clock: the node's may be wrong.
#[derive(Debug, Default)]
pub(super) struct Heartbeats(HashMap<String, (String, Instant)>);

impl Heartbeats {
    /// How long a node has been silent, given what it last left.
    fn silence(&mut self, node: &str, sign: String) -> Duration {
        let now = Instant::now();
        match self.0.get(node) {
            Some((known, since)) if *known == sign => now.duration_since(*since),
            _ => {
                self.0.insert(node.to_owned(), (sign, now));
                Duration::ZERO
            }
        }
    }
}

pub(super) fn reconcile(
    store: &Store,
    instances: &[Instance],
    heartbeats: &mut Heartbeats,
    grace: Duration,
) {
    let mut quiet = HashSet::new();
    for node in node_objects(store) {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        let lease = store.get(&LEASES, LEASE_NAMESPACE, name);
        let errand = cloud::errand(&node, instances);
        if errand == Some(Errand::Delete) {
            tracing::info!(node = name, "instance is gone: its Node is deleted");
            remove(store, &NODES, &node);
            if let Some(lease) = lease {
                remove(store, &LEASES, &lease);
            }
            heartbeats.0.remove(name);
            continue;
        }
        let silence = heartbeats.silence(name, sign_of_life(&node, lease.as_ref()));
        let silent = silence > grace;
        amend(store, &NODES, &node, |node| {
            if silent {
                mark_unknown(node);
            }
            if let Some(Errand::Initialise(instance)) = errand {
                cloud::initialise(node, instance);
            }
            node["spec"]["taints"] = tainted(node).into();
        });
        if silent {
            quiet.insert(name.to_owned());
        }
    }
    unready_pods(store, &quiet);
}

/// What changes whenever kubelet is heard of.
fn sign_of_life(node: &Value, lease: Option<&Arc<Value>>) -> String {
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready");
    let beat = ready.map_or(&Value::Null, |ready| &ready["lastHeartbeatTime"]);
    let renewed = lease.map_or(&Value::Null, |lease| &lease["spec"]["renewTime"]);
    format!("{}/{beat}/{renewed}", node["metadata"]["uid"])
}

/// What the node controller writes when kubelet has been silent for too long.
fn mark_unknown(node: &mut Value) {
    let now = now_seconds();
    if !node["status"]["conditions"].is_array() {
        node["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = node["status"]["conditions"].as_array_mut() else { return };
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        match conditions.iter_mut().find(|condition| condition["type"] == kind) {
            Some(condition) if condition["status"] != "Unknown" => {
                condition["status"] = "Unknown".into();
                condition["reason"] = "NodeStatusUnknown".into();
                condition["message"] = "Kubelet stopped posting node status.".into();
                condition["lastTransitionTime"] = now.clone().into();
            }
            Some(_) => {}
            None => conditions.push(json!({"type": kind, "status": "Unknown",
                "reason": "NodeStatusNeverUpdated",
                "message": "Kubelet never posted node status.", "lastTransitionTime": now})),
        }
    }
}

/// The node's taints, with those of its condition put right.
fn tainted(node: &Value) -> Vec<Value> {
    let fence = match condition(node, "Ready") {
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    let held = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let mut taints: Vec<Value> = held
        .into_iter()
        .filter(|taint| taint["key"] != NOT_READY && taint["key"] != UNREACHABLE)
        .collect();
    if let Some(key) = fence {
        taints.push(json!({"key": key, "effect": "NoSchedule"}));
        if condition(node, "Ready").is_some() {
            taints.push(json!({"key": key, "effect": "NoExecute"}));
        }
    }
    taints
}

/// Pods of silent nodes are not ready for anybody.
fn unready_pods(store: &Store, quiet: &HashSet<String>) {
    if quiet.is_empty() {
        return;
    }
    for pod in store.list(&PODS, "").objects {
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if quiet.contains(node) && is_ready(&pod) {
            amend(store, &PODS, &pod, |pod| {
                let conditions = pod["status"]["conditions"].as_array_mut();
                for condition in conditions.into_iter().flatten() {
                    if condition["type"] == "Ready" {
                        condition["status"] = "False".into();
                        condition["lastTransitionTime"] = now_seconds().into();
                    }
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: &str) -> Value {
        json!({"metadata": {"name": "a", "uid": "u"}, "spec": {"taints": [
            {"key": "nvidia.com/gpu", "effect": "NoSchedule"},
            {"key": "t", "value": "true", "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": status,
                "lastHeartbeatTime": "t0"}]}})
    }

    fn keys(taints: &[Value]) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        taints.iter().map(|t| format!("{}:{}", text(&t["key"]), text(&t["effect"]))).collect()
    }

    #[test]
    fn conditions_become_taints_and_leave_others_alone() {
        let own = ["nvidia.com/gpu:NoSchedule", "t:NoSchedule"];
        let with =
            |more: &[&str]| own.iter().chain(more).map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(keys(&tainted(&ready("True"))), with(&[]));
        assert_eq!(
            keys(&tainted(&ready("False"))),
            with(&[
                "node.kubernetes.io/not-ready:NoSchedule",
                "node.kubernetes.io/not-ready:NoExecute"
            ])
        );
        assert_eq!(
            keys(&tainted(&ready("Unknown"))),
            with(&[
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute"
            ])
        );
    }

    #[test]
    fn silence_is_measured_from_the_last_sign() {
        let mut heartbeats = Heartbeats::default();
        let node = ready("True");
        assert_eq!(heartbeats.silence("a", sign_of_life(&node, None)), Duration::ZERO);
        assert!(heartbeats.silence("a", sign_of_life(&node, None)) > Duration::ZERO);
        let lease = Arc::new(json!({"spec": {"renewTime": "t1"}}));
        assert_eq!(heartbeats.silence("a", sign_of_life(&node, Some(&lease))), Duration::ZERO);
    }

    #[test]
    fn an_unknown_node_says_what_the_controller_says() {
        let mut node = ready("True");
        mark_unknown(&mut node);
        let first = &node["status"]["conditions"][0];
        assert_eq!(first["message"], "Kubelet stopped posting node status.");
        assert_eq!(first["reason"], "NodeStatusUnknown");
        assert_eq!(condition(&node, "MemoryPressure"), Some("Unknown"));
    }
}
