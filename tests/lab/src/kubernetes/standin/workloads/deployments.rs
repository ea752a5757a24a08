//! The Deployment controller: so many pods of a template. It owns its pods itself; the ReplicaSet
//! that would stand between is left out.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::metadata::now_seconds;
use super::super::registry::{DEPLOYMENTS, PODS};
use super::super::store::Store;
use super::{amend, pods, remove};
use crate::kubernetes::view::is_ready;

pub(super) fn reconcile(store: &Store) {
    for deployment in store.list(&DEPLOYMENTS, "").objects {
        let all = store.list(&PODS, "").objects;
        let own = pods::owned_by(&all, &deployment);
        let (create, excess) = plan(&deployment, &own);
        for pod in &excess {
            remove(store, &PODS, pod);
        }
        for _ in 0..create {
            pods::create(store, &deployment, pods::from_template(&DEPLOYMENTS, &deployment));
        }
        amend(store, &DEPLOYMENTS, &deployment, |next| next["status"] = status(&deployment, &own));
    }
}

/// How many pods to create, and which to remove. Pure.
fn plan(deployment: &Value, own: &[Arc<Value>]) -> (usize, Vec<Arc<Value>>) {
    let hash = pods::template_hash(deployment);
    let wanted = wanted(deployment);
    let (current, old): (Vec<_>, Vec<_>) = own
        .iter()
        .cloned()
        .partition(|pod| pod["metadata"]["labels"][pods::TEMPLATE_HASH] == hash.as_str());
    let mut excess: Vec<Arc<Value>> = current.iter().skip(wanted).cloned().collect();
    let missing = wanted.saturating_sub(current.len());
    // Old pods go once the new ones are there to take over.
    if missing == 0 && current.iter().take(wanted).all(|pod| is_ready(pod)) {
        excess.extend(old);
    }
    (missing, excess)
}

fn wanted(deployment: &Value) -> usize {
    let replicas = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    usize::try_from(replicas).unwrap_or(usize::MAX)
}

fn status(deployment: &Value, own: &[Arc<Value>]) -> Value {
    let hash = pods::template_hash(deployment);
    let ready = own.iter().filter(|pod| is_ready(pod)).count();
    let updated = own
        .iter()
        .filter(|pod| pod["metadata"]["labels"][pods::TEMPLATE_HASH] == hash.as_str())
        .count();
    let wanted = wanted(deployment);
    // The default strategy lets a quarter be unavailable, rounded down.
    let enough = ready >= wanted - wanted / 4;
    let (state, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    let before = deployment["status"]["conditions"][0].clone();
    let since = if before["status"] == state {
        before["lastTransitionTime"].clone()
    } else {
        now_seconds().into()
    };
    let mut status = json!({
        "observedGeneration": deployment["metadata"]["generation"],
        "conditions": [{"type": "Available", "status": state, "reason": reason,
            "message": message, "lastTransitionTime": since}],
    });
    let counts = [
        ("replicas", own.len()),
        ("updatedReplicas", updated),
        ("readyReplicas", ready),
        ("availableReplicas", ready),
        ("unavailableReplicas", wanted.saturating_sub(ready)),
    ];
    for (field, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        status[field] = count.into();
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(replicas: u64) -> Value {
        json!({"metadata": {"name": "coredns", "uid": "u", "generation": 1}, "spec": {
            "replicas": replicas,
            "template": {"metadata": {"labels": {}}, "spec": {"containers": []}}}})
    }

    fn pod(of: &Value, ready: bool) -> Arc<Value> {
        let mut pod = pods::from_template(&DEPLOYMENTS, of);
        let status = if ready { "True" } else { "False" };
        pod["status"]["conditions"] = json!([{"type": "Ready", "status": status}]);
        Arc::new(pod)
    }

    #[test]
    fn pods_are_added_up_to_the_replicas_and_removed_beyond() {
        let two = deployment(2);
        assert_eq!(plan(&two, &[]), (2, Vec::new()));
        let own = [pod(&two, true), pod(&two, true), pod(&two, true)];
        let (create, excess) = plan(&two, &own);
        assert_eq!((create, excess.len()), (0, 1));
    }

    #[test]
    fn availability_is_counted_from_pods_that_are_ready() {
        let two = deployment(2);
        let half = status(&two, &[pod(&two, true), pod(&two, false)]);
        assert_eq!(half["availableReplicas"], 1);
        assert_eq!(half["unavailableReplicas"], 1);
        assert_eq!(half["conditions"][0]["status"], "False");
        let whole = status(&two, &[pod(&two, true), pod(&two, true)]);
        assert_eq!(whole["conditions"][0]["status"], "True");
        assert_eq!(status(&two, &[]).get("availableReplicas"), None);
    }

    #[test]
    fn old_pods_stay_until_their_successors_are_ready() {
        let old = deployment(1);
        let mut new = old.clone();
        new["spec"]["template"]["spec"]["hostNetwork"] = true.into();
        assert_eq!(plan(&new, &[pod(&old, true)]), (1, Vec::new()));
        assert_eq!(plan(&new, &[pod(&old, true), pod(&new, false)]).1.len(), 0);
        assert_eq!(plan(&new, &[pod(&old, true), pod(&new, true)]).1.len(), 1);
    }
}
