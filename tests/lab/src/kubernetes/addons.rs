//! EKS's add-ons as the workloads that they are. Pure; each gear applies and removes them.
//!
//! Names, labels, image names and service accounts are the add-ons' own; what is in the images is
//! the lab's affair.

use serde_json::{Value, json};

use super::world::Addon;

/// Where every add-on's workload is.
pub(super) const NAMESPACE: &str = "kube-system";
/// Marks what came with an add-on, so that nobody else's workload of that name is removed.
pub(super) const MARK: &str = "eks.amazonaws.com/component-of-addon";
const REGISTRY: &str = "602401143452.dkr.ecr.us-east-1.amazonaws.com";

/// An add-on that brings a workload.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) addon: &'static str,
    pub(super) workload: &'static str,
    pub(super) form: Form,
    /// The label `k8s-app`, or `app.kubernetes.io/name` where the add-on has no `k8s-app`.
    label: (&'static str, &'static str),
    image: &'static str,
    version: &'static str,
}

/// How an add-on runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// On every node, whatever its taints, and before there is a pod network.
    Daemon,
    /// On any ordinary node, once it is Ready.
    Dns,
}

/// Every add-on that brings a workload.
pub(super) static KNOWN: &[Known] = &[
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

impl Known {
    /// The cluster's add-on of this name, unless it is being deleted.
    pub(super) fn wanted<'a>(&self, addons: &'a [Addon]) -> Option<&'a Addon> {
        let present = addons.iter().find(|addon| addon.name == self.addon);
        present.filter(|addon| !addon.status.starts_with("DELET"))
    }

    /// The add-on's service account and workload.
    pub(super) fn manifests(&self, version: Option<&str>) -> [Value; 2] {
        let version = version.unwrap_or(self.version);
        let (label, value) = self.label;
        let labels = json!({label: value, MARK: self.addon});
        let kind = match self.form {
            Form::Daemon => "DaemonSet",
            Form::Dns => "Deployment",
        };
        let mut pod = pod(self.form);
        pod["serviceAccountName"] = self.workload.into();
        pod["containers"] = json!([{
            "name": self.workload,
            "image": format!("{REGISTRY}/{}:{version}", self.image),
            "imagePullPolicy": "IfNotPresent",
            "env": [{"name": "MY_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
            "volumeMounts": mounts(self.form),
        }]);
        pod["volumes"] = volumes(self.form);
        let mut workload = json!({
            "apiVersion": "apps/v1", "kind": kind,
            "metadata": {"name": self.workload, "namespace": NAMESPACE, "labels": labels},
            "spec": {
                "selector": {"matchLabels": {label: value}},
                "template": {"metadata": {"labels": {label: value}}, "spec": pod},
            },
        });
        if self.form == Form::Dns {
            workload["spec"]["replicas"] = 2.into();
        }
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": self.workload, "namespace": NAMESPACE, "labels": {MARK: self.addon}},
        });
        [account, workload]
    }
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
            let [account, workload] = known.manifests(Some("v9"));
            let template = &workload["spec"]["template"];
            let (label, value) = known.label;
            assert_eq!(workload["metadata"]["labels"][MARK], known.addon);
            assert_eq!(template["metadata"]["labels"][label], value);
            assert_eq!(workload["spec"]["selector"]["matchLabels"][label], value);
            assert_eq!(template["spec"]["serviceAccountName"], account["metadata"]["name"]);
            let image = template["spec"]["containers"][0]["image"].as_str().unwrap();
            assert_eq!(image, format!("{REGISTRY}/{}:v9", known.image));
            let daemon = known.form == Form::Daemon;
            assert_eq!(workload["kind"] == "DaemonSet", daemon);
            assert_eq!(template["spec"]["hostNetwork"] == true, daemon, "{}", known.addon);
        }
    }

    #[test]
    fn an_addon_that_is_being_deleted_is_not_wanted() {
        let addon =
            |status: &str| Addon { name: "vpc-cni".into(), version: None, status: status.into() };
        for (status, wanted) in [("CREATING", true), ("DEGRADED", true), ("DELETING", false)] {
            assert_eq!(KNOWN[0].wanted(&[addon(status)]).is_some(), wanted, "{status}");
            assert!(KNOWN[1].wanted(&[addon(status)]).is_none());
        }
    }
}
