//! Pods as such: made from a template, bound to nodes, collected when what they belong to is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::metadata::now_seconds;
use super::super::registry::{DAEMONSETS, DEPLOYMENTS, PODS, ResourceType};
use super::super::store::Store;
use super::{amend, node_objects, placement, remove};

const GPU: &str = contract::names::RESOURCE_GPU;

/// The label that tells pods of an old template from those of the present one.
pub(super) const TEMPLATE_HASH: &str = "controller-revision-hash";

/// A short name for a template's content.
pub(super) fn template_hash(owner: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    owner["spec"]["template"].to_string().hash(&mut hasher);
    format!("{:010x}", hasher.finish() & 0xff_ffff_ffff)
}

/// A pod of this owner's template, not yet bound.
pub(super) fn from_template(kind: &ResourceType, owner: &Value) -> Value {
    let template = &owner["spec"]["template"];
    let name = owner["metadata"]["name"].as_str().unwrap_or_default();
    let mut pod = json!({
        "metadata": {
            "generateName": format!("{name}-"),
            "labels": template["metadata"]["labels"],
            "ownerReferences": [{"apiVersion": kind.api_version(), "kind": kind.kind, "name": name,
                "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": template["spec"],
        "status": {"phase": "Pending"},
    });
    pod["metadata"]["labels"][TEMPLATE_HASH] = template_hash(owner).into();
    if !template["metadata"]["annotations"].is_null() {
        pod["metadata"]["annotations"] = template["metadata"]["annotations"].clone();
    }
    pod
}

/// Creates a pod in its owner's namespace.
pub(super) fn create(store: &Store, owner: &Value, pod: Value) {
    let namespace = owner["metadata"]["namespace"].as_str().unwrap_or_default();
    if let Err(error) = store.create(&PODS, namespace, pod) {
        tracing::warn!(message = error.message, "a controller could not create a pod");
    }
}

/// The pods that this owner controls.
pub(super) fn owned_by(pods: &[Arc<Value>], owner: &Value) -> Vec<Arc<Value>> {
    let uid = &owner["metadata"]["uid"];
    pods.iter().filter(|pod| controller(pod)["uid"] == *uid).cloned().collect()
}

fn controller(pod: &Value) -> &Value {
    let owners = pod["metadata"]["ownerReferences"].as_array();
    let found = owners.and_then(|owners| owners.iter().find(|owner| owner["controller"] == true));
    found.unwrap_or(&Value::Null)
}

/// Removes pods of nodes that are gone and of controllers that are gone.
pub(super) fn collect_garbage(store: &Store) {
    let nodes: BTreeSet<String> = node_objects(store).iter().map(|node| name_of(node)).collect();
    let owners: BTreeSet<String> = [&DAEMONSETS, &DEPLOYMENTS]
        .into_iter()
        .flat_map(|kind| store.list(kind, "").objects)
        .filter_map(|owner| owner["metadata"]["uid"].as_str().map(str::to_owned))
        .collect();
    for pod in store.list(&PODS, "").objects {
        let lost = pod["spec"]["nodeName"].as_str().is_some_and(|node| !nodes.contains(node));
        let owner = controller(&pod);
        let kept = owner["uid"].as_str().is_some_and(|uid| owners.contains(uid));
        let known = matches!(owner["kind"].as_str(), Some("DaemonSet" | "Deployment"));
        if lost || (known && !kept) {
            remove(store, &PODS, &pod);
        }
    }
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// Binds the pods that have no node yet, or says why they cannot be.
pub(super) fn schedule(store: &Store) {
    let nodes = node_objects(store);
    let pods = store.list(&PODS, "").objects;
    let mut load = Load::of(&pods);
    for pod in pods.iter().filter(|pod| pod["spec"]["nodeName"].as_str().is_none()) {
        let chosen = choose(&pod["spec"], &nodes, &load);
        if let Ok(node) = &chosen {
            load.add(node, &pod["spec"]);
        }
        amend(store, &PODS, pod, |pod| record(pod, &chosen));
    }
}

fn record(pod: &mut Value, chosen: &Result<String, String>) {
    let mut condition = json!({"type": "PodScheduled", "lastTransitionTime": now_seconds()});
    match chosen {
        Ok(node) => {
            pod["spec"]["nodeName"] = node.clone().into();
            condition["status"] = "True".into();
        }
        Err(why) => {
            let known = pod["status"]["conditions"][0]["message"] == why.as_str();
            if known {
                return;
            }
            condition["status"] = "False".into();
            condition["reason"] = "Unschedulable".into();
            condition["message"] = why.clone().into();
        }
    }
    pod["status"]["conditions"] = json!([condition]);
}

/// What already runs on each node.
#[derive(Debug, Default)]
struct Load(BTreeMap<String, (usize, u64)>);

impl Load {
    fn of(pods: &[Arc<Value>]) -> Self {
        let mut load = Self::default();
        for pod in pods {
            if let Some(node) = pod["spec"]["nodeName"].as_str() {
                load.add(node, &pod["spec"]);
            }
        }
        load
    }

    fn add(&mut self, node: &str, pod: &Value) {
        let entry = self.0.entry(node.to_owned()).or_default();
        entry.0 += 1;
        entry.1 += placement::asked_for(pod, GPU);
    }

    fn on(&self, node: &str) -> (usize, u64) {
        self.0.get(node).copied().unwrap_or_default()
    }
}

/// The node with the fewest pods among those that fit, or the scheduler's words for why none does.
fn choose(pod: &Value, nodes: &[Arc<Value>], load: &Load) -> Result<String, String> {
    if nodes.is_empty() {
        return Err("no nodes available to schedule pods".to_owned());
    }
    let wanted = placement::asked_for(pod, GPU);
    let (mut unselected, mut tainted, mut short) = (0, 0, 0);
    let mut best: Option<(usize, String)> = None;
    for node in nodes {
        let name = name_of(node);
        let (count, used) = load.on(&name);
        let free = placement::quantity(&node["status"]["allocatable"][GPU]).saturating_sub(used);
        if !placement::tolerates(pod, node) {
            tainted += 1;
        } else if !placement::selects(pod, node) {
            unselected += 1;
        } else if wanted > free {
            short += 1;
        } else if best.as_ref().is_none_or(|(least, _)| count < *least) {
            best = Some((count, name));
        }
    }
    best.map(|(_, name)| name).ok_or_else(|| {
        let reasons = [
            (short, format!("Insufficient {GPU}")),
            (unselected, "node(s) didn't match Pod's node affinity/selector".to_owned()),
            (tainted, "node(s) had untolerated taint(s)".to_owned()),
        ];
        let said: Vec<String> = reasons
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, why)| format!("{count} {why}"))
            .collect();
        format!("0/{} nodes are available: {}.", nodes.len(), said.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, gpus: u64, taint: Option<&str>) -> Arc<Value> {
        let taints: Vec<Value> =
            taint.into_iter().map(|key| json!({"key": key, "effect": "NoSchedule"})).collect();
        Arc::new(json!({"metadata": {"name": name, "labels": {"n": name}},
            "spec": {"taints": taints}, "status": {"allocatable": {GPU: gpus.to_string()}}}))
    }

    #[test]
    fn pods_go_to_the_least_loaded_node_that_fits() {
        let nodes = [node("a", 8, None), node("b", 8, None), node("c", 0, Some("x"))];
        let mut load = Load::default();
        let pod = json!({"containers": [{"resources": {"limits": {GPU: "8"}}}]});
        let first = choose(&pod, &nodes, &load).unwrap();
        load.add(&first, &pod);
        let second = choose(&pod, &nodes, &load).unwrap();
        assert_ne!(first, second);
        load.add(&second, &pod);
        let why = choose(&pod, &nodes, &load).unwrap_err();
        assert_eq!(
            why,
            "0/3 nodes are available: 2 Insufficient nvidia.com/gpu, 1 node(s) had untolerated \
             taint(s)."
        );
        let why = choose(&json!({}), &[], &load).unwrap_err();
        assert_eq!(why, "no nodes available to schedule pods");
    }

    #[test]
    fn a_template_makes_a_pod_with_its_owner_and_hash() {
        let owner = json!({"metadata": {"name": "d", "uid": "u"}, "spec": {"template": {
            "metadata": {"labels": {"app": "x"}}, "spec": {"containers": []}}}});
        let pod = from_template(&DAEMONSETS, &owner);
        assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "DaemonSet");
        assert_eq!(pod["metadata"]["labels"]["app"], "x");
        let mut changed = owner.clone();
        changed["spec"]["template"]["spec"]["hostNetwork"] = true.into();
        assert_ne!(template_hash(&owner), template_hash(&changed));
        assert_eq!(owned_by(&[Arc::new(pod)], &owner).len(), 1);
    }
}
