//! Add-ons in the stand-in's store: applied when the add-on is created, removed with it.

use serde_json::Value;

use super::super::registry::{DAEMONSETS, DEPLOYMENTS, ResourceType, SERVICEACCOUNTS};
use super::super::store::Store;
use super::{amend, remove};
use crate::kubernetes::addons::{Form, KNOWN, Known, MARK, NAMESPACE};
use crate::kubernetes::world::Addon;

pub(super) fn reconcile(store: &Store, addons: &[Addon]) {
    for known in KNOWN {
        let kinds = [&SERVICEACCOUNTS, workload_kind(known.form)];
        let Some(addon) = known.wanted(addons) else {
            kinds.into_iter().for_each(|kind| remove_own(store, kind, known));
            continue;
        };
        let manifests = known.manifests(addon.version.as_deref());
        for (kind, wanted) in kinds.into_iter().zip(manifests) {
            match store.get(kind, NAMESPACE, known.workload) {
                None => create(store, kind, known, wanted),
                Some(present) => amend(store, kind, &present, |current| {
                    if let Some(spec) = wanted.get("spec") {
                        current["spec"] = spec.clone();
                    }
                }),
            }
        }
    }
}

fn workload_kind(form: Form) -> &'static ResourceType {
    match form {
        Form::Daemon => &DAEMONSETS,
        Form::Dns => &DEPLOYMENTS,
    }
}

fn remove_own(store: &Store, kind: &'static ResourceType, known: &Known) {
    if let Some(present) = store.get(kind, NAMESPACE, known.workload)
        && present["metadata"]["labels"][MARK] == known.addon
    {
        remove(store, kind, &present);
    }
}

fn create(store: &Store, kind: &'static ResourceType, known: &Known, mut manifest: Value) {
    if kind.status {
        manifest["status"] = serde_json::json!({});
    }
    if let Err(error) = store.create(kind, NAMESPACE, manifest) {
        tracing::warn!(message = error.message, addon = known.addon, "could not apply an add-on");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn addon(name: &str, status: &str) -> Addon {
        Addon { name: name.into(), version: Some("v9".into()), status: status.into() }
    }

    #[test]
    fn a_workload_comes_changes_and_goes_with_its_addon() {
        let store = Store::default();
        store.seed();
        reconcile(&store, &[addon("vpc-cni", "CREATING"), addon("coredns", "DEGRADED")]);
        let node = store.get(&DAEMONSETS, NAMESPACE, "aws-node").unwrap();
        assert_eq!(node["metadata"]["labels"]["k8s-app"], "aws-node");
        let image = &node["spec"]["template"]["spec"]["containers"][0]["image"];
        assert!(image.as_str().unwrap().ends_with("amazon-k8s-cni:v9"));
        let dns = store.get(&DEPLOYMENTS, NAMESPACE, "coredns").unwrap();
        assert_eq!(dns["spec"]["replicas"], 2);
        assert!(store.get(&DAEMONSETS, NAMESPACE, "kube-proxy").is_none());
        assert!(store.get(&SERVICEACCOUNTS, NAMESPACE, "aws-node").is_some());

        reconcile(&store, &[addon("vpc-cni", "ACTIVE"), addon("coredns", "DELETING")]);
        let same = store.get(&DAEMONSETS, NAMESPACE, "aws-node").unwrap();
        assert_eq!(same["metadata"]["resourceVersion"], node["metadata"]["resourceVersion"]);
        assert!(store.get(&DEPLOYMENTS, NAMESPACE, "coredns").is_none());
        assert!(store.get(&SERVICEACCOUNTS, NAMESPACE, "coredns").is_none());
    }

    #[test]
    fn a_workload_that_is_not_an_addons_is_left_alone() {
        let store = Store::default();
        store.seed();
        let own = json!({"metadata": {"name": "aws-node"}, "spec": {}});
        store.create(&DAEMONSETS, NAMESPACE, own).unwrap();
        reconcile(&store, &[]);
        assert!(store.get(&DAEMONSETS, NAMESPACE, "aws-node").is_some());
    }
}
