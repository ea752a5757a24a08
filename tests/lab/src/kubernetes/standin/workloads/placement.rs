//! Where a pod may run: node selectors, node affinity, taints and tolerations. Pure.

use serde_json::{Value, json};

use super::super::selector::Labels;

/// Whether the pod's node selector and required node affinity accept the node.
pub(super) fn selects(pod: &Value, node: &Value) -> bool {
    let labels = &node["metadata"]["labels"];
    if !Labels::from_map(&pod["nodeSelector"]).matches(labels) {
        return false;
    }
    let required =
        &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    match required["nodeSelectorTerms"].as_array() {
        None => true,
        // Terms are alternatives; an empty term selects nothing.
        Some(terms) => terms.iter().any(|term| {
            let by_label = term["matchExpressions"].as_array().is_some_and(|list| !list.is_empty());
            by_label && Labels::from_object(term).matches(labels)
        }),
    }
}

/// Whether the pod tolerates every taint of the node that keeps pods off.
pub(super) fn tolerates(pod: &Value, node: &Value) -> bool {
    let taints = node["spec"]["taints"].as_array().map_or(&[][..], Vec::as_slice);
    let tolerations = pod["tolerations"].as_array().map_or(&[][..], Vec::as_slice);
    taints
        .iter()
        .filter(|taint| taint["effect"] != "PreferNoSchedule")
        .all(|taint| tolerations.iter().any(|toleration| covers(toleration, taint)))
}

fn covers(toleration: &Value, taint: &Value) -> bool {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (effect, key) = (text(&toleration["effect"]), text(&toleration["key"]));
    if !effect.is_empty() && taint["effect"] != effect.as_str() {
        return false;
    }
    let exists = toleration["operator"] == "Exists";
    if key.is_empty() {
        return exists;
    }
    taint["key"] == key.as_str() && (exists || text(&toleration["value"]) == text(&taint["value"]))
}

/// The tolerations that the DaemonSet controller adds to each of its pods.
pub(super) fn daemon_tolerations(pod: &mut Value) {
    let mut added = vec![
        json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}),
        json!({"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}),
    ];
    for pressure in ["disk-pressure", "memory-pressure", "pid-pressure", "unschedulable"] {
        added.push(json!({"key": format!("node.kubernetes.io/{pressure}"), "operator": "Exists",
            "effect": "NoSchedule"}));
    }
    if pod["hostNetwork"] == true {
        added.push(json!({"key": "node.kubernetes.io/network-unavailable", "operator": "Exists",
            "effect": "NoSchedule"}));
    }
    match pod["tolerations"].as_array_mut() {
        Some(list) => list.extend(added),
        None => pod["tolerations"] = Value::Array(added),
    }
}

/// How many of an extended resource a pod asks for, over all its containers.
pub(super) fn asked_for(pod: &Value, resource: &str) -> u64 {
    let containers = pod["containers"].as_array().into_iter().flatten();
    containers
        .map(|container| {
            let resources = &container["resources"];
            quantity(&resources["limits"][resource]).max(quantity(&resources["requests"][resource]))
        })
        .sum()
}

/// A whole quantity, given as text or as a number.
pub(super) fn quantity(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_keep_pods_off_unless_tolerated() {
        let gpu = json!({"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"});
        let table = [
            (json!([]), json!([gpu]), false),
            (json!([{"operator": "Exists"}]), json!([gpu]), true),
            (json!([{"key": "nvidia.com/gpu", "operator": "Exists"}]), json!([gpu]), true),
            (json!([{"key": "nvidia.com/gpu", "value": "true"}]), json!([gpu]), true),
            (json!([{"key": "nvidia.com/gpu", "value": "no"}]), json!([gpu]), false),
            (
                json!([{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute"}]),
                json!([gpu]),
                false,
            ),
            (json!([]), json!([{"key": "x", "effect": "PreferNoSchedule"}]), true),
            (json!([]), json!([]), true),
        ];
        for (tolerations, taints, expected) in table {
            let pod = json!({"tolerations": tolerations});
            let node = json!({"spec": {"taints": taints}});
            assert_eq!(tolerates(&pod, &node), expected, "{pod} on {node}");
        }
    }

    #[test]
    fn a_daemons_pod_tolerates_a_node_that_is_not_ready_only_where_it_runs_already() {
        let mut pod = json!({});
        daemon_tolerations(&mut pod);
        let node = |effect: &str| json!({"spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": effect}]}});
        assert!(tolerates(&pod, &node("NoExecute")));
        assert!(!tolerates(&pod, &node("NoSchedule")), "it is placed once the node is ready");
    }

    #[test]
    fn selectors_and_affinity_must_both_accept() {
        let node = json!({"metadata": {"labels": {"node-type": "gpu", "os": "linux"}}});
        let affinity = |values: Value| {
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "os", "operator": "In", "values": values}]}]}}})
        };
        let table = [
            (json!({}), true),
            (json!({"nodeSelector": {"node-type": "gpu"}}), true),
            (json!({"nodeSelector": {"node-type": "system"}}), false),
            (json!({"affinity": affinity(json!(["linux"]))}), true),
            (json!({"affinity": affinity(json!(["windows"]))}), false),
        ];
        for (pod, expected) in table {
            assert_eq!(selects(&pod, &node), expected, "{pod}");
        }
    }

    #[test]
    fn gpus_are_summed_over_containers() {
        let pod = json!({"containers": [
            {"resources": {"limits": {"nvidia.com/gpu": "2"}}},
            {"resources": {"requests": {"nvidia.com/gpu": 1}}}, {}]});
        assert_eq!(asked_for(&pod, "nvidia.com/gpu"), 3);
    }
}
