//! Node objects as plain facts.

use std::collections::BTreeMap;

use ::kube::api::{Api, ListParams};
use contract::offer::Plugged;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::api::resource::v1::ResourceSlice;
use serde::Serialize;
use serde_json::Value;

use super::connect::{Cluster, KubeError};

/// What one Node object says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFacts {
    /// Name of the Node object.
    pub name: String,
    /// `aws:///us-east-1a/i-0abc`.
    pub provider_id: String,
    /// When the Node object was made, RFC 3339.
    pub created: Option<String>,
    /// Its conditions by type.
    pub conditions: BTreeMap<String, ConditionFacts>,
    /// What it offers to pods, by resource, as Kubernetes writes quantities.
    pub allocatable: BTreeMap<String, String>,
    /// kubelet's version.
    pub kubelet_version: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints, `key=value:effect`.
    pub taints: Vec<String>,
    /// Whether it is cordoned.
    pub unschedulable: bool,
}

/// One condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionFacts {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub message: String,
    /// When its status last changed, RFC 3339.
    pub since: Option<String>,
}

impl ConditionFacts {
    /// Whether it says `True`.
    #[must_use]
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }
}

impl NodeFacts {
    /// The instance behind it: the last part of its provider id.
    #[must_use]
    pub fn instance_id(&self) -> Option<&str> {
        let id = self.provider_id.rsplit('/').next()?;
        id.starts_with("i-").then_some(id)
    }

    /// Whether kubelet calls it Ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(ConditionFacts::is_true)
    }

    /// One of its conditions.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<&ConditionFacts> {
        self.conditions.get(kind)
    }

    /// The GPUs that a device plugin offers to pods.
    #[must_use]
    pub fn plugged(&self) -> Plugged {
        Plugged::of(self.allocatable.iter().map(|(name, count)| (name.as_str(), count.as_str())))
    }
}

impl Cluster {
    /// The cluster's nodes, all of them or those that a label selector names.
    ///
    /// # Errors
    /// Where the way ended.
    pub async fn nodes(&self, selector: Option<&str>) -> Result<Vec<NodeFacts>, KubeError> {
        let mut parameters = ListParams::default().limit(500);
        parameters.label_selector = selector.map(str::to_owned);
        let mut nodes = Vec::new();
        loop {
            let page = self
                .call("list the nodes", async |client| {
                    Api::<Node>::all(client).list(&parameters).await
                })
                .await?;
            nodes.extend(page.items.into_iter().map(facts_of));
            match page.metadata.continue_ {
                Some(token) if !token.is_empty() => parameters.continue_token = Some(token),
                _ => return Ok(nodes),
            }
        }
    }
}

impl Cluster {
    /// The cluster's ResourceSlices, as they stand on the wire.
    ///
    /// # Errors
    /// Where the way ended.
    pub async fn resource_slices(&self) -> Result<Vec<Value>, KubeError> {
        let mut parameters = ListParams::default().limit(500);
        let mut slices = Vec::new();
        loop {
            let page = self
                .call("list the ResourceSlices", async |client| {
                    Api::<ResourceSlice>::all(client).list(&parameters).await
                })
                .await?;
            slices.extend(page.items.iter().filter_map(|slice| serde_json::to_value(slice).ok()));
            match page.metadata.continue_ {
                Some(token) if !token.is_empty() => parameters.continue_token = Some(token),
                _ => return Ok(slices),
            }
        }
    }
}

fn facts_of(node: Node) -> NodeFacts {
    let spec = node.spec.unwrap_or_default();
    let status = node.status.unwrap_or_default();
    NodeFacts {
        name: node.metadata.name.unwrap_or_default(),
        provider_id: spec.provider_id.unwrap_or_default(),
        created: node.metadata.creation_timestamp.as_ref().map(rfc3339),
        conditions: status.conditions.unwrap_or_default().into_iter().map(condition_of).collect(),
        allocatable: status
            .allocatable
            .unwrap_or_default()
            .into_iter()
            .map(|(resource, quantity)| (resource, quantity.0))
            .collect(),
        kubelet_version: status.node_info.map(|info| info.kubelet_version).unwrap_or_default(),
        labels: node.metadata.labels.unwrap_or_default(),
        taints: spec
            .taints
            .unwrap_or_default()
            .into_iter()
            .map(|t| format!("{}={}:{}", t.key, t.value.unwrap_or_default(), t.effect))
            .collect(),
        unschedulable: spec.unschedulable.unwrap_or_default(),
    }
}

fn condition_of(condition: NodeCondition) -> (String, ConditionFacts) {
    let facts = ConditionFacts {
        status: condition.status,
        reason: condition.reason.unwrap_or_default(),
        message: condition.message.unwrap_or_default(),
        since: condition.last_transition_time.as_ref().map(rfc3339),
    };
    (condition.type_, facts)
}

/// A Kubernetes time as it stands on the wire.
pub(super) fn rfc3339<T: Serialize>(time: &T) -> String {
    match serde_json::to_value(time) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_matters() {
        let node: Node = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "ip-10-0-1-7.ec2.internal", "labels": {"node-type": "gpu"},
                         "creationTimestamp": "2026-11-20T20:00:00Z"},
            "spec": {"providerID": "aws:///us-east-1a/i-0abc",
                     "taints": [{"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}]},
            "status": {
                "allocatable": {"nvidia.com/gpu": "8", "cpu": "191450m"},
                "conditions": [{"type": "Ready", "status": "False", "reason": "KubeletNotReady",
                                "message": "container runtime network not ready"}],
                "nodeInfo": {"kubeletVersion": "v1.34.2-eks-1", "architecture": "amd64",
                    "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
                    "kubeProxyVersion": "", "machineID": "", "operatingSystem": "linux",
                    "osImage": "", "systemUUID": ""}}
        }))
        .unwrap();
        let facts = facts_of(node);
        assert_eq!(facts.instance_id(), Some("i-0abc"));
        assert!(!facts.is_ready());
        assert_eq!(facts.condition("Ready").unwrap().reason, "KubeletNotReady");
        assert_eq!(facts.plugged(), Plugged { gpus: Some(8), parts: 0 });
        assert_eq!(facts.taints, ["nvidia.com/gpu=true:NoSchedule"]);
        assert_eq!(facts.created.as_deref(), Some("2026-11-20T20:00:00Z"));
        assert_eq!(facts.kubelet_version, "v1.34.2-eks-1");
    }

    #[test]
    fn a_node_of_elsewhere_has_no_instance() {
        let node = NodeFacts { provider_id: "kind://docker/x".into(), ..NodeFacts::default() };
        assert_eq!(node.instance_id(), None);
        assert_eq!(NodeFacts::default().instance_id(), None);
    }
}
