//! What authorisation cannot see: the objects. NodeRestriction's rules for nodes, and the taint that
//! every new Node starts with. Pure.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::registry::{LEASES, NODES, PODS, RESOURCESLICES, ResourceType};
use super::status::ApiError;

/// The taint that keeps pods off until the node is Ready.
pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Labels in Kubernetes' own namespaces that kubelet may set.
const KUBELET_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];
const KUBELET_NAMESPACES: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Whether a node may not set this label on itself.
pub(in crate::kubernetes) fn is_restricted_label(label: &str) -> bool {
    let Some((namespace, _)) = label.split_once('/') else { return false };
    let ours = |suffix: &str| namespace == suffix || namespace.ends_with(&format!(".{suffix}"));
    if !ours("kubernetes.io") && !ours("k8s.io") {
        return false;
    }
    let by_kubelet = KUBELET_NAMESPACES
        .iter()
        .any(|allowed| namespace == *allowed || namespace.ends_with(&format!(".{allowed}")));
    !by_kubelet && !KUBELET_LABELS.contains(&label)
}

/// Judges a node's write. `before` is the stored object, none for a create; `after` none for a delete.
pub(super) fn node_restriction(
    node: &str,
    kind: &ResourceType,
    name: &str,
    before: Option<&Value>,
    after: Option<&Value>,
) -> Result<(), ApiError> {
    let refuse = |why: String| Err(ApiError::refused(kind, name, &why));
    if kind == &NODES {
        if name != node {
            return refuse(format!("node \"{node}\" is not allowed to modify node \"{name}\""));
        }
        let (Some(after), before) = (after, before) else { return Ok(()) };
        return own_node(node, before, after).map_or_else(refuse, Ok);
    }
    if kind == &PODS {
        return own_pod(node, before, after).map_or_else(refuse, Ok);
    }
    if kind == &RESOURCESLICES {
        let foreign = [before, after].into_iter().flatten().any(|s| s["spec"]["nodeName"] != node);
        if foreign {
            return refuse(
                "can only create ResourceSlice with the same NodeName as the requesting node"
                    .to_owned(),
            );
        }
    }
    if kind == &LEASES && name != node {
        let why = "can only access node lease with the same name as the requesting node";
        return refuse(why.to_owned());
    }
    Ok(())
}

fn own_node(node: &str, before: Option<&Value>, after: &Value) -> Result<(), String> {
    let empty = json!({});
    let before_labels = before.map_or(&empty, |node| &node["metadata"]["labels"]);
    let forbidden: Vec<String> = changed_labels(before_labels, &after["metadata"]["labels"])
        .into_iter()
        .filter(|label| is_restricted_label(label))
        .collect();
    if !forbidden.is_empty() {
        let forbidden = forbidden.join(", ");
        // The API server words the two differently.
        return Err(if before.is_some() {
            format!("is not allowed to modify labels: {forbidden}")
        } else {
            format!("node \"{node}\" is not allowed to set the following labels: {forbidden}")
        });
    }
    if before.is_some_and(|before| taints(before) != taints(after)) {
        return Err(format!("node \"{node}\" is not allowed to modify taints"));
    }
    Ok(())
}

fn own_pod(node: &str, before: Option<&Value>, after: Option<&Value>) -> Result<(), String> {
    match (before, after) {
        (Some(pod), None) if pod["spec"]["nodeName"] != node => {
            Err(format!("node \"{node}\" can only delete pods with spec.nodeName set to itself"))
        }
        (Some(pod), Some(_)) if pod["spec"]["nodeName"] != node => Err(format!(
            "node \"{node}\" can only update pod status for pods with spec.nodeName set to itself"
        )),
        (None, Some(pod))
            if pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null() =>
        {
            Err(format!(
                "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"{node}\" can only create mirror pods"
            ))
        }
        (None, Some(pod)) if pod["spec"]["nodeName"] != node => {
            Err(format!("node \"{node}\" can only create pods with spec.nodeName set to itself"))
        }
        _ => Ok(()),
    }
}

fn taints(node: &Value) -> &[Value] {
    node["spec"]["taints"].as_array().map_or(&[], Vec::as_slice)
}

fn changed_labels(before: &Value, after: &Value) -> BTreeSet<String> {
    let names = |labels: &Value| {
        labels.as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect::<Vec<_>>()
    };
    let all = names(before).into_iter().chain(names(after));
    all.filter(|name| before.get(name) != after.get(name)).collect()
}

/// TaintNodesByCondition: a new Node is fenced until its controller has seen it Ready.
pub(super) fn taint_new_node(node: &mut Value) {
    let taint = json!({"key": NOT_READY, "effect": "NoSchedule"});
    let list = &mut node["spec"]["taints"];
    match list.as_array_mut() {
        Some(list) if list.iter().any(|have| have["key"] == NOT_READY) => {}
        Some(list) => list.push(taint),
        None => *list = json!([taint]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restricted_labels_are_those_of_kubernetes_that_kubelet_does_not_own() {
        let table = [
            ("node-type", false),
            ("rollcall.dev/pool", false),
            ("eks.amazonaws.com/nodegroup", false),
            ("nvidia.com/gpu.present", false),
            ("kubernetes.io/hostname", false),
            ("topology.kubernetes.io/zone", false),
            ("node.kubernetes.io/anything", false),
            ("node-role.kubernetes.io/gpu", true),
            ("node-restriction.kubernetes.io/x", true),
            ("kubernetes.io/x", true),
            ("topology.k8s.aws/x", false),
            ("x.k8s.io/y", true),
        ];
        for (label, expected) in table {
            assert_eq!(is_restricted_label(label), expected, "{label}");
        }
    }

    #[test]
    fn a_node_changes_only_itself_and_neither_its_taints_nor_fenced_labels() {
        let tainted = json!({"metadata": {"labels": {"a": "1"}},
            "spec": {"taints": [{"key": "t", "effect": "NoSchedule"}]}});
        let mut untainted = tainted.clone();
        untainted["spec"]["taints"] = json!([]);
        let mut relabelled = tainted.clone();
        relabelled["metadata"]["labels"]["a"] = "2".into();
        let mut promoted = tainted.clone();
        promoted["metadata"]["labels"]["node-role.kubernetes.io/x"] = "".into();
        let judge = |name, before: Option<&Value>, after| {
            node_restriction("n", &NODES, name, before, Some(after)).map_err(|e| e.message)
        };
        assert_eq!(judge("n", None, &tainted), Ok(()));
        assert_eq!(judge("n", Some(&tainted), &relabelled), Ok(()));
        let prefix = "nodes \"n\" is forbidden: ";
        assert_eq!(
            judge("n", Some(&tainted), &untainted),
            Err(format!("{prefix}node \"n\" is not allowed to modify taints"))
        );
        assert_eq!(
            judge("n", Some(&tainted), &promoted),
            Err(format!("{prefix}is not allowed to modify labels: node-role.kubernetes.io/x"))
        );
        assert_eq!(
            judge("n", None, &promoted),
            Err(format!(
                "{prefix}node \"n\" is not allowed to set the following labels: node-role.kubernetes.io/x"
            ))
        );
        assert_eq!(
            judge("m", Some(&tainted), &relabelled),
            Err("nodes \"m\" is forbidden: node \"n\" is not allowed to modify node \"m\"".into())
        );
    }

    #[test]
    fn a_node_reports_only_its_own_pods() {
        let mine = json!({"spec": {"nodeName": "n"}});
        let theirs = json!({"spec": {"nodeName": "m"}});
        let judge = |before: Option<&Value>, after: Option<&Value>| {
            node_restriction("n", &PODS, "p", before, after).is_ok()
        };
        assert!(judge(Some(&mine), Some(&mine)) && judge(Some(&mine), None));
        assert!(!judge(Some(&theirs), Some(&theirs)) && !judge(Some(&theirs), None));
        assert!(!judge(None, Some(&mine)), "only mirror pods may be created");
    }

    #[test]
    fn a_new_node_is_fenced_once() {
        let mut node = json!({"spec": {"taints": [{"key": "t"}]}});
        taint_new_node(&mut node);
        taint_new_node(&mut node);
        assert_eq!(node["spec"]["taints"].as_array().unwrap().len(), 2);
    }
}
