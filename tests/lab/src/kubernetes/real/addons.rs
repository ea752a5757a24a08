//! EKS add-ons as real workloads in the real API server: applied when the add-on is created,
//! removed with it.
//!
//! Names, labels, image names and service accounts are the add-ons' own; what is in the images is
//! the lab's affair.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::api::{Api, ApiError};
use crate::kubernetes::standin::world::Addon;

const REGISTRY: &str = "602401143452.dkr.ecr.us-east-1.amazonaws.com";

/// An add-on that brings a workload.
struct Known {
    addon: &'static str,
    workload: &'static str,
    form: Form,
    /// The label `k8s-app`, or `app.kubernetes.io/name` where the add-on has no `k8s-app`.
    label: (&'static str, &'static str),
    image: &'static str,
    version: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// On every node, whatever its taints, and before there is a pod network.
    Daemon,
    /// On any ordinary node, once it is Ready.
    Dns,
}

static KNOWN: &[Known] = &[
    Known {
        addon: "vpc-cni",
        workload: "aws-node",
        form: Form::Daemon,
        label: ("k8s-app", "aws-node"),
        image: "amazon-k8s-cni",
        version: "v1.20.4-eksbuild.1",
    },
    Known {
        addon: "kube-proxy",
        workload: "kube-proxy",
        form: Form::Daemon,
        label: ("k8s-app", "kube-proxy"),
        image: "eks/kube-proxy",
        version: "v1.34.0-eksbuild.2",
    },
    Known {
        addon: "eks-pod-identity-agent",
        workload: "eks-pod-identity-agent",
        form: Form::Daemon,
        label: ("app.kubernetes.io/name", "eks-pod-identity-agent"),
        image: "eks/eks-pod-identity-agent",
        version: "v1.3.9-eksbuild.3",
    },
    Known {
        addon: "coredns",
        workload: "coredns",
        form: Form::Dns,
        label: ("k8s-app", "kube-dns"),
        image: "eks/coredns",
        version: "v1.12.3-eksbuild.1",
    },
];

/// What has been applied, so that a pass without a change asks for nothing.
#[derive(Debug, Default)]
pub(super) struct Applied(BTreeMap<&'static str, Option<String>>);

impl Applied {
    /// Brings the workloads into line with the add-ons.
    pub(super) async fn reconcile(&mut self, api: &Api, addons: &[Addon]) -> Result<(), ApiError> {
        for known in KNOWN {
            let addon = addons
                .iter()
                .find(|addon| addon.name == known.addon && !addon.status.starts_with("DELET"));
            let before = self.0.get(known.addon);
            match (addon, before) {
                (Some(addon), Some(version)) if *version == addon.version => {}
                (Some(addon), _) => {
                    let [account, workload] = manifests(known, addon.version.as_deref());
                    api.apply(&account_path(known), &account).await?;
                    api.apply(&workload_path(known), &workload).await?;
                    self.0.insert(known.addon, addon.version.clone());
                }
                (None, Some(_)) => {
                    api.delete(&workload_path(known)).await?;
                    api.delete(&account_path(known)).await?;
                    self.0.remove(known.addon);
                }
                (None, None) => {}
            }
        }
        Ok(())
    }
}

fn account_path(known: &Known) -> String {
    format!("/api/v1/namespaces/kube-system/serviceaccounts/{}", known.workload)
}

fn workload_path(known: &Known) -> String {
    let resource = match known.form {
        Form::Daemon => "daemonsets",
        Form::Dns => "deployments",
    };
    format!("/apis/apps/v1/namespaces/kube-system/{resource}/{}", known.workload)
}

/// The add-on's service account and workload. Pure.
fn manifests(known: &Known, version: Option<&str>) -> [Value; 2] {
    let version = version.unwrap_or(known.version);
    let (label, value) = known.label;
    let kind = match known.form {
        Form::Daemon => "DaemonSet",
        Form::Dns => "Deployment",
    };
    let mut pod = pod(known.form);
    pod["serviceAccountName"] = known.workload.into();
    pod["containers"] = json!([{
        "name": known.workload,
        "image": format!("{REGISTRY}/{}:{version}", known.image),
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "MY_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "volumeMounts": mounts(known.form),
    }]);
    pod["volumes"] = volumes(known.form);
    let mut workload = json!({
        "apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": known.workload, "namespace": "kube-system", "labels": {label: value}},
        "spec": {
            "selector": {"matchLabels": {label: value}},
            "template": {"metadata": {"labels": {label: value}}, "spec": pod},
        },
    });
    if known.form == Form::Dns {
        workload["spec"]["replicas"] = 2.into();
    }
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": known.workload, "namespace": "kube-system"},
    });
    [account, workload]
}

fn pod(form: Form) -> Value {
    let linux_only = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
    "nodeSelectorTerms": [{"matchExpressions": [
        {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
        {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]},
    ]}]}}});
    match form {
        Form::Daemon => json!({
            "hostNetwork": true,
            "priorityClassName": "system-node-critical",
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{"operator": "Exists"}],
            "affinity": linux_only,
        }),
        Form::Dns => json!({
            "priorityClassName": "system-cluster-critical",
            "terminationGracePeriodSeconds": 1,
            "tolerations": [
                {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
                {"key": "CriticalAddonsOnly", "operator": "Exists"},
            ],
            "affinity": linux_only,
        }),
    }
}

/// The folders of the host that the VPC CNI's pod fills.
const HOST_FOLDERS: [(&str, &str); 3] = [
    ("cni-net-dir", "/etc/cni/net.d"),
    ("run-dir", "/var/run/aws-node"),
    // Where a machine of the lab has the file that holds the CNI back.
    ("simulated", "/run/rollcall-lab/simulated"),
];

fn mounts(form: Form) -> Value {
    let of =
        |(name, path): &(&str, &str)| json!({"name": name, "mountPath": format!("/host{path}")});
    match form {
        Form::Daemon => HOST_FOLDERS.iter().map(of).collect(),
        Form::Dns => json!([]),
    }
}

fn volumes(form: Form) -> Value {
    let of = |(name, path): &(&str, &str)| json!({"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}});
    match form {
        Form::Daemon => HOST_FOLDERS.iter().map(of).collect(),
        Form::Dns => json!([]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_selected_by_the_labels_of_the_real_ones() {
        for known in KNOWN {
            let [account, workload] = manifests(known, Some("v9"));
            let template = &workload["spec"]["template"];
            let (label, value) = known.label;
            assert_eq!(template["metadata"]["labels"][label], value);
            assert_eq!(workload["spec"]["selector"]["matchLabels"][label], value);
            assert_eq!(template["spec"]["serviceAccountName"], account["metadata"]["name"]);
            let image = template["spec"]["containers"][0]["image"].as_str().unwrap();
            assert_eq!(image, format!("{REGISTRY}/{}:v9", known.image));
            let daemon = known.form == Form::Daemon;
            assert_eq!(workload_path(known).contains("daemonsets"), daemon);
            assert_eq!(template["spec"]["hostNetwork"] == true, daemon, "{}", known.addon);
        }
    }
}
