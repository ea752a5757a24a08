//! The DaemonSet controller: one pod on every node that fits, and a status that tells the truth.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::registry::{DAEMONSETS, PODS};
use super::super::store::Store;
use super::{amend, node_objects, placement, pods, remove};
use crate::kubernetes::view::is_ready;

pub(super) fn reconcile(store: &Store) {
    let nodes = node_objects(store);
    for set in store.list(&DAEMONSETS, "").objects {
        let all = store.list(&PODS, "").objects;
        let plan = plan(&set, &nodes, &pods::owned_by(&all, &set));
        for pod in &plan.remove {
            remove(store, &PODS, pod);
        }
        for node in &plan.place {
            let mut pod = pods::from_template(&DAEMONSETS, &set);
            pod["spec"]["nodeName"] = node.clone().into();
            placement::daemon_tolerations(&mut pod["spec"]);
            pods::create(store, &set, pod);
        }
        amend(store, &DAEMONSETS, &set, |set| set["status"] = plan.status);
    }
}

/// What a DaemonSet needs now.
#[derive(Debug, PartialEq)]
struct Plan {
    /// Nodes that lack a pod.
    place: Vec<String>,
    /// Pods that should not be, or are of an old template.
    remove: Vec<Arc<Value>>,
    status: Value,
}

/// Decides for one DaemonSet. Pure.
fn plan(set: &Value, nodes: &[Arc<Value>], own: &[Arc<Value>]) -> Plan {
    let mut spec = set["spec"]["template"]["spec"].clone();
    placement::daemon_tolerations(&mut spec);
    let hash = pods::template_hash(set);
    let (mut place, mut gone) = (Vec::new(), Vec::new());
    let (mut desired, mut current, mut updated, mut ready, mut misscheduled) = (0, 0, 0, 0, 0);
    let mut by_node: HashMap<&str, Vec<&Arc<Value>>> = HashMap::new();
    for pod in own {
        let name = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        by_node.entry(name).or_default().push(pod);
    }
    for node in nodes {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        let mut here = by_node.remove(name).unwrap_or_default().into_iter();
        let pod = here.next();
        gone.extend(here.cloned());
        let (fits, stays) = verdict(&spec, node);
        match pod {
            Some(pod) if !stays => {
                misscheduled += 1;
                gone.push(Arc::clone(pod));
            }
            Some(pod) => {
                desired += u32::from(fits);
                current += 1;
                ready += u32::from(is_ready(pod));
                if pod["metadata"]["labels"][pods::TEMPLATE_HASH] == hash.as_str() {
                    updated += 1;
                } else {
                    gone.push(Arc::clone(pod));
                }
            }
            None if fits => {
                desired += 1;
                place.push(name.to_owned());
            }
            None => {}
        }
    }
    let mut status = json!({
        "currentNumberScheduled": current,
        "numberMisscheduled": misscheduled,
        "desiredNumberScheduled": desired,
        "numberReady": ready,
        "observedGeneration": set["metadata"]["generation"],
        "updatedNumberScheduled": updated,
    });
    if ready > 0 {
        status["numberAvailable"] = ready.into();
    }
    if desired > ready {
        status["numberUnavailable"] = (desired - ready).into();
    }
    Plan { place, remove: gone, status }
}

/// Whether a pod should be placed on the node, and whether one that is there may stay: a taint that
/// only keeps new pods off does not drive old ones away.
fn verdict(spec: &Value, node: &Value) -> (bool, bool) {
    let selected = placement::selects(spec, node);
    let mut evicting = node.clone();
    if let Some(taints) = evicting["spec"]["taints"].as_array_mut() {
        taints.retain(|taint| taint["effect"] == "NoExecute");
    }
    (
        selected && placement::tolerates(spec, node),
        selected && placement::tolerates(spec, &evicting),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, kind: &str, taints: Value) -> Arc<Value> {
        Arc::new(json!({"metadata": {"name": name, "labels": {"node-type": kind}},
            "spec": {"taints": taints}}))
    }

    fn set() -> Value {
        json!({"metadata": {"name": "plugin", "namespace": "kube-system", "uid": "u",
            "generation": 3},
            "spec": {"template": {"metadata": {"labels": {}}, "spec": {
                "nodeSelector": {"node-type": "gpu"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]}}}})
    }

    fn pod(set: &Value, node: &str, ready: bool) -> Arc<Value> {
        let mut pod = pods::from_template(&DAEMONSETS, set);
        pod["metadata"]["name"] = format!("p-{node}").into();
        pod["spec"]["nodeName"] = node.into();
        let status = if ready { "True" } else { "False" };
        pod["status"]["conditions"] = json!([{"type": "Ready", "status": status}]);
        Arc::new(pod)
    }

    #[test]
    fn pods_are_placed_where_selector_and_taints_allow_and_nowhere_else() {
        let gpu_taint = json!([{"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}]);
        let fenced = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]);
        let nodes = [
            node("a", "gpu", gpu_taint.clone()),
            node("b", "system", json!([])),
            node("c", "gpu", fenced),
            node("d", "gpu", gpu_taint),
        ];
        let set = set();
        let plan = plan(&set, &nodes, &[pod(&set, "a", true)]);
        assert_eq!(plan.place, ["d"]);
        assert!(plan.remove.is_empty());
        assert_eq!(
            plan.status,
            json!({"currentNumberScheduled": 1, "numberMisscheduled": 0,
                "desiredNumberScheduled": 2, "numberReady": 1, "observedGeneration": 3,
                "updatedNumberScheduled": 1, "numberAvailable": 1, "numberUnavailable": 1})
        );
    }

    #[test]
    fn a_fence_after_placement_drives_nobody_away_but_no_execute_does() {
        let set = set();
        let own = [pod(&set, "a", false)];
        let fence = |effect: &str| [node("a", "gpu", json!([{"key": "sick", "effect": effect}]))];
        assert!(plan(&set, &fence("NoSchedule"), &own).remove.is_empty());
        let evicted = plan(&set, &fence("NoExecute"), &own);
        assert_eq!(evicted.remove.len(), 1);
        assert_eq!(evicted.status["numberMisscheduled"], 1);
    }

    #[test]
    fn pods_of_an_old_template_are_replaced() {
        let old = set();
        let mut new = old.clone();
        new["spec"]["template"]["spec"]["hostNetwork"] = true.into();
        let plan = plan(&new, &[node("a", "gpu", json!([]))], &[pod(&old, "a", true)]);
        assert_eq!(plan.remove.len(), 1);
        assert_eq!(plan.status["updatedNumberScheduled"], 0);
    }
}
