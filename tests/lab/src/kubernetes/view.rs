//! What the rest of the lab sees of Kubernetes' objects. Pure.

use serde_json::Value;

/// A Node object, as far as the lab's supervisor needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// The Node object's name.
    pub name: String,
    /// The last part of its provider id; empty when it has none.
    pub instance_id: String,
    /// Whether its condition `Ready` is `True`.
    pub ready: bool,
}

impl NodeView {
    /// Reads a Node object.
    pub(super) fn of(node: &Value) -> Self {
        Self {
            name: name(node).to_owned(),
            instance_id: provider_instance(node).unwrap_or_default().to_owned(),
            ready: is_ready(node),
        }
    }
}

/// An object's name.
pub(super) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// The instance that a Node's provider id names: `i-1` of `aws:///us-east-1a/i-1`.
pub(super) fn provider_instance(node: &Value) -> Option<&str> {
    let provider = node["spec"]["providerID"].as_str()?;
    provider.rsplit('/').next().filter(|id| id.starts_with("i-"))
}

/// A condition's status: `True`, `False`, `Unknown`, or nothing.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)?["status"].as_str()
}

/// Whether an object's condition `Ready` is `True`.
pub(super) fn is_ready(object: &Value) -> bool {
    condition(object, "Ready") == Some("True")
}

/// How many of a Deployment's replicas are available.
pub(super) fn available_replicas(deployment: &Value) -> u32 {
    let count = deployment["status"]["availableReplicas"].as_u64().unwrap_or(0);
    u32::try_from(count).unwrap_or(u32::MAX)
}
