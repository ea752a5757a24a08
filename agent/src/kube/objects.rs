//! The few objects that pass between the node and the API server.

use serde::{Deserialize, Serialize};

/// Who the API server thinks we are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Identity {
    /// User name: `system:node:<name>` for a node.
    #[serde(default)]
    pub username: String,
    /// Groups: `system:nodes` among them for a node.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// A condition of the Node, as in the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type, `AcceleratedHardwareReady`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    #[serde(default)]
    pub reason: String,
    /// One sentence.
    #[serde(default)]
    pub message: String,
    /// When it was last confirmed, RFC 3339 without fractions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heartbeat_time: Option<String>,
    /// When `status` last changed, RFC 3339 without fractions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
}

/// An event on the node's own Node object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// One word.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// `Normal` or `Warning`.
    pub kind: &'static str,
    /// When, RFC 3339 without fractions.
    pub at: String,
}
