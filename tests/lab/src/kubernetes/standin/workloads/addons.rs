//! EKS add-ons as the workloads that they are: applied when the add-on is created, removed with it.

use serde_json::{Value, json};

use super::super::registry::{DAEMONSETS, DEPLOYMENTS, ResourceType};
use super::super::store::Store;
use super::super::world::Addon;
use super::{amend, remove};

const NAMESPACE: &str = "kube-system";
/// Marks what came with an add-on, so that nobody else's workload of that name is removed.
const MARK: &str = "eks.amazonaws.com/component-of-addon";
const REGISTRY: &str = "602401143452.dkr.ecr.us-east-1.amazonaws.com";

/// An add-on that brings a workload.
struct Known {
    addon: &'static str,
    kind: &'static ResourceType,
    workload: &'static str,
    /// The label `k8s-app`, or `app.kubernetes.io/name` where the add-on has no `k8s-app`.
    label: (&'static str, &'static str),
    image: &'static str,
    version: &'static str,
}

static KNOWN: &[Known] = &[
    Known {
        addon: "vpc-cni",
        kind: &DAEMONSETS,
        workload: "aws-node",
        label: ("k8s-app", "aws-node"),
        image: "amazon-k8s-cni",
        version: "v1.20.4-eksbuild.1",
    },
    Known {
        addon: "kube-proxy",
        kind: &DAEMONSETS,
        workload: "kube-proxy",
        label: ("k8s-app", "kube-proxy"),
        image: "eks/kube-proxy",
        version: "v1.34.0-eksbuild.2",
    },
    Known {
        addon: "eks-pod-identity-agent",
        kind: &DAEMONSETS,
        workload: "eks-pod-identity-agent",
        label: ("app.kubernetes.io/name", "eks-pod-identity-agent"),
        image: "eks/eks-pod-identity-agent",
        version: "v1.3.9-eksbuild.3",
    },
    Known {
        addon: "coredns",
        kind: &DEPLOYMENTS,
        workload: "coredns",
        label: ("k8s-app", "kube-dns"),
        image: "eks/coredns",
        version: "v1.12.3-eksbuild.1",
    },
];

pub(super) fn reconcile(store: &Store, addons: &[Addon]) {
    for known in KNOWN {
        let addon = addons
            .iter()
            .find(|addon| addon.name == known.addon && !addon.status.starts_with("DELET"));
        let present = store.get(known.kind, NAMESPACE, known.workload);
        match (addon, present) {
            (Some(addon), present) => {
                let wanted = manifest(known, addon.version.as_deref());
                match present {
                    None => create(store, known, wanted),
                    Some(present) => amend(store, known.kind, &present, |current| {
                        current["spec"] = wanted["spec"].clone();
                    }),
                }
            }
            (None, Some(present)) if present["metadata"]["labels"][MARK] == known.addon => {
                remove(store, known.kind, &present);
            }
            (None, _) => {}
        }
    }
}

fn create(store: &Store, known: &Known, manifest: Value) {
    if let Err(error) = store.create(known.kind, NAMESPACE, manifest) {
        tracing::warn!(message = error.message, addon = known.addon, "could not apply an add-on");
    }
}

/// The add-on's workload. Pure.
fn manifest(known: &Known, version: Option<&str>) -> Value {
    let version = version.unwrap_or(known.version);
    let (label, value) = known.label;
    let pod = if known.addon == "coredns" { dns_pod() } else { daemon_pod() };
    let mut manifest = json!({
        "metadata": {"name": known.workload, "labels": {label: value, MARK: known.addon}},
        "spec": {
            "selector": {"matchLabels": {label: value}},
            "template": {"metadata": {"labels": {label: value}}, "spec": pod},
        },
        "status": {},
    });
    manifest["spec"]["template"]["spec"]["containers"] =
        json!([{"name": known.workload, "image": format!("{REGISTRY}/{}:{version}", known.image)}]);
    if known.addon == "coredns" {
        manifest["spec"]["replicas"] = 2.into();
    }
    manifest
}

/// On every node, whatever its taints, and before there is a pod network.
fn daemon_pod() -> Value {
    let mut pod = json!({
        "hostNetwork": true,
        "priorityClassName": "system-node-critical",
        "tolerations": [{"operator": "Exists"}],
    });
    pod["affinity"] = linux_only();
    pod
}

/// On any ordinary node, once it is Ready.
fn dns_pod() -> Value {
    let mut pod = json!({
        "priorityClassName": "system-cluster-critical",
        "tolerations": [
            {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
        ],
    });
    pod["affinity"] = linux_only();
    pod
}

fn linux_only() -> Value {
    json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
    "nodeSelectorTerms": [{"matchExpressions": [
        {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
        {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]},
    ]}]}}})
}

#[cfg(test)]
mod tests {
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

        reconcile(&store, &[addon("vpc-cni", "ACTIVE"), addon("coredns", "DELETING")]);
        let same = store.get(&DAEMONSETS, NAMESPACE, "aws-node").unwrap();
        assert_eq!(same["metadata"]["resourceVersion"], node["metadata"]["resourceVersion"]);
        assert!(store.get(&DEPLOYMENTS, NAMESPACE, "coredns").is_none());
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
