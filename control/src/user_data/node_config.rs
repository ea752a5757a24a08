//! The NodeConfig that nodeadm reads (`awslabs.github.io/amazon-eks-ami`, `node.eks.aws/v1alpha1`).

use serde::Serialize;

use super::NodeSettings;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeConfig<'a> {
    api_version: &'static str,
    kind: &'static str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    cluster: Cluster<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<Instance>,
    kubelet: Kubelet,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cluster<'a> {
    name: &'a str,
    api_server_endpoint: &'a str,
    certificate_authority: &'a str,
    cidr: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    local_storage: LocalStorage,
}

#[derive(Serialize)]
struct LocalStorage {
    strategy: &'static str,
}

#[derive(Serialize)]
struct Kubelet {
    flags: Vec<String>,
}

/// The document. Labels and taints are flags: nodeadm appends them to its own.
pub(super) fn render(node: &NodeSettings) -> Result<String, serde_yaml::Error> {
    let mut flags = Vec::new();
    if !node.labels.is_empty() {
        let labels: Vec<_> =
            node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        flags.push(format!("--node-labels={}", labels.join(",")));
    }
    if !node.taints.is_empty() {
        // A node may set its taints when it registers and never again, and a managed group's own
        // come after that: pods that do not want a GPU would be quicker.
        let taints: Vec<_> = node.taints.iter().map(ToString::to_string).collect();
        flags.push(format!("--register-with-taints={}", taints.join(",")));
    }
    serde_yaml::to_string(&NodeConfig {
        api_version: "node.eks.aws/v1alpha1",
        kind: "NodeConfig",
        spec: Spec {
            cluster: Cluster {
                name: &node.cluster,
                api_server_endpoint: &node.endpoint,
                certificate_authority: &node.ca,
                cidr: &node.service_cidr,
            },
            instance: node
                .local_storage
                .then_some(Instance { local_storage: LocalStorage { strategy: "RAID0" } }),
            kubelet: Kubelet { flags },
        },
    })
}
