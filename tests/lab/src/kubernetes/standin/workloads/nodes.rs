//! Node lifecycle: silence becomes `Unknown`, conditions become taints, and what the cloud knows of an
//! instance reaches its Node; a terminated instance's Node goes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::admission::NOT_READY;
use super::super::metadata::now_seconds;
use super::super::registry::{LEASES, NODES, PODS};
use super::super::store::Store;
use super::super::world::Instance;
use super::{amend, condition, is_ready, node_objects, remove};

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";
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
    for node in node_objects(store) {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        let lease = store.get(&LEASES, LEASE_NAMESPACE, name);
        let instance = instance_of(&node, instances);
        if is_gone(&node, instance) {
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
            if let Some(instance) = instance {
                initialise(node, instance);
            }
            node["spec"]["taints"] = tainted(node).into();
        });
        if silent {
            unready_pods(store, name);
        }
    }
}

/// What changes whenever kubelet is heard of.
fn sign_of_life(node: &Value, lease: Option<&Arc<Value>>) -> String {
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready");
    let beat = ready.map_or(&Value::Null, |ready| &ready["lastHeartbeatTime"]);
    let renewed = lease.map_or(&Value::Null, |lease| &lease["spec"]["renewTime"]);
    format!("{}/{beat}/{renewed}", node["metadata"]["uid"])
}

fn instance_of<'a>(node: &Value, instances: &'a [Instance]) -> Option<&'a Instance> {
    let id = provider_instance(node);
    let name = node["metadata"]["name"].as_str().unwrap_or_default();
    instances.iter().find(|instance| match id {
        Some(id) => instance.instance_id == id,
        None => instance.private_dns_name == name && instance.state != "terminated",
    })
}

fn provider_instance(node: &Value) -> Option<&str> {
    let provider = node["spec"]["providerID"].as_str()?;
    provider.rsplit('/').next().filter(|id| id.starts_with("i-"))
}

/// Whether the instance is no more. A Node that names no instance is left alone.
fn is_gone(node: &Value, instance: Option<&Instance>) -> bool {
    match instance {
        Some(instance) => instance.state == "terminated",
        None => provider_instance(node).is_some(),
    }
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

/// The cloud node controller's part: labels and addresses, and its taint goes.
fn initialise(node: &mut Value, instance: &Instance) {
    let region = instance.zone.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
    let labels = [
        ("node.kubernetes.io/instance-type", instance.instance_type.as_str()),
        ("topology.kubernetes.io/zone", instance.zone.as_str()),
        ("topology.kubernetes.io/region", region),
        ("topology.k8s.aws/zone-id", instance.zone_id.as_str()),
    ];
    for (label, value) in labels.into_iter().filter(|(_, value)| !value.is_empty()) {
        node["metadata"]["labels"][label] = value.into();
    }
    if let Some(taints) = node["spec"]["taints"].as_array_mut() {
        taints.retain(|taint| taint["key"] != UNINITIALIZED);
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

/// Pods of a silent node are not ready for anybody.
fn unready_pods(store: &Store, node: &str) {
    for pod in store.list(&PODS, "").objects {
        if pod["spec"]["nodeName"] == node && is_ready(&pod) {
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
            {"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": status,
                "lastHeartbeatTime": "t0"}]}})
    }

    fn keys(taints: &[Value]) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        taints.iter().map(|t| format!("{}:{}", text(&t["key"]), text(&t["effect"]))).collect()
    }

    #[test]
    fn conditions_become_taints_and_leave_others_alone() {
        let own = [
            "nvidia.com/gpu:NoSchedule",
            "node.cloudprovider.kubernetes.io/uninitialized:NoSchedule",
        ];
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

    #[test]
    fn the_cloud_labels_a_node_and_lifts_its_own_taint() {
        let mut node = ready("True");
        let instance = Instance {
            instance_type: "p5.48xlarge".into(),
            zone: "us-east-1a".into(),
            ..Instance::default()
        };
        initialise(&mut node, &instance);
        assert_eq!(node["metadata"]["labels"]["topology.kubernetes.io/region"], "us-east-1");
        assert_eq!(keys(&tainted(&node)), ["nvidia.com/gpu:NoSchedule"]);
    }

    #[test]
    fn only_a_node_of_an_instance_can_be_gone() {
        let mut node = ready("True");
        assert!(!is_gone(&node, None));
        node["spec"]["providerID"] = "aws:///us-east-1a/i-1".into();
        assert!(is_gone(&node, None));
        let mut instance =
            Instance { instance_id: "i-1".into(), state: "running".into(), ..Instance::default() };
        assert!(!is_gone(&node, instance_of(&node, &[instance.clone()])));
        instance.state = "terminated".into();
        assert!(is_gone(&node, instance_of(&node, &[instance])));
    }
}
