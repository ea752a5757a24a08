//! Kubernetes events about one node, newest last.

use ::kube::api::{Api, ListParams};
use k8s_openapi::api::core::v1::Event;
use serde::Serialize;

use super::connect::{Cluster, KubeError};
use super::nodes::rfc3339;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventFacts {
    /// `Normal` or `Warning`.
    pub kind: String,
    /// Its reason.
    pub reason: String,
    /// What it says.
    pub message: String,
    /// When it was last seen, RFC 3339.
    pub at: String,
    /// How often.
    pub count: u32,
}

impl Cluster {
    /// The events about a node.
    ///
    /// # Errors
    /// Where the way ended.
    pub async fn node_events(&self, node: &str) -> Result<Vec<EventFacts>, KubeError> {
        let parameters = ListParams::default()
            .fields(&format!("involvedObject.kind=Node,involvedObject.name={node}"));
        let events = self
            .call(&format!("list the events of node `{node}`"), async |client| {
                Api::<Event>::all(client).list(&parameters).await
            })
            .await?;
        let mut events: Vec<EventFacts> = events
            .items
            .into_iter()
            // A server that ignores a field selector must not blame this node for its neighbour.
            .filter(|event| event.involved_object.name.as_deref() == Some(node))
            .map(facts_of)
            .collect();
        events.sort_by(|a, b| a.at.cmp(&b.at));
        Ok(events)
    }
}

fn facts_of(event: Event) -> EventFacts {
    let at = event
        .last_timestamp
        .as_ref()
        .map(rfc3339)
        .or_else(|| event.event_time.as_ref().map(rfc3339))
        .or_else(|| event.first_timestamp.as_ref().map(rfc3339));
    EventFacts {
        kind: event.type_.unwrap_or_default(),
        reason: event.reason.unwrap_or_default(),
        message: event.message.unwrap_or_default(),
        at: at.unwrap_or_default(),
        count: event.count.and_then(|count| u32::try_from(count).ok()).unwrap_or(1),
    }
}
