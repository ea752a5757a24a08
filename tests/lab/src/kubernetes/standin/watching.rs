//! Watches: a stream of JSON lines that follows the store's history.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::registry::ResourceType;
use super::reply::{self, Reply};
use super::request::{Query, ResourceRequest};
use super::resources::selectors;
use super::selector::{Fields, Labels};
use super::status::ApiError;
use super::store::{Change, Store};

/// How long a watch lasts when its client does not say, as in the API server.
const DEFAULT_LENGTH: Duration = Duration::from_secs(30 * 60);
/// Events that may wait for a slow client.
const BACKLOG: usize = 256;

/// What a watch is of.
#[derive(Debug)]
struct Watch {
    kind: &'static ResourceType,
    namespace: String,
    labels: Labels,
    fields: Fields,
}

/// Starts a watch; a task of its own feeds it until its client is gone or its time is up.
pub(super) fn start(
    store: &Arc<Store>,
    request: &ResourceRequest,
    query: &Query,
) -> Result<Reply, ApiError> {
    if query.flag("sendInitialEvents") {
        let why = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless \
                   the WatchList feature gate is enabled";
        return Err(ApiError::invalid_options("ListOptions", why));
    }
    let (labels, fields) = selectors(query)?;
    let watch = Watch { kind: request.kind, namespace: request.namespace.clone(), labels, fields };
    let (first, from) = match query.get("resourceVersion").unwrap_or_default() {
        "" | "0" => watch.initial(store),
        version => {
            let bad = || ApiError::bad_request(format!("invalid resource version \"{version}\""));
            (Vec::new(), version.parse().map_err(|_| bad())?)
        }
    };
    let seconds = query.get("timeoutSeconds").and_then(|text| text.parse().ok());
    let length = seconds.map_or(DEFAULT_LENGTH, Duration::from_secs);
    let (sender, receiver) = mpsc::channel(BACKLOG);
    tokio::spawn(feed(Arc::clone(store), watch, first, from, sender, Instant::now() + length));
    Ok(reply::lines(receiver))
}

async fn feed(
    store: Arc<Store>,
    watch: Watch,
    first: Vec<Value>,
    mut from: u64,
    sender: mpsc::Sender<Bytes>,
    until: Instant,
) {
    let mut changed = store.subscribe();
    let mut events = first;
    loop {
        for event in events.drain(..) {
            if sender.send(Bytes::from(format!("{event}\n"))).await.is_err() {
                return;
            }
        }
        changed.mark_unchanged();
        match store.changes_since(watch.kind, from) {
            Ok((revision, changes)) => {
                from = revision;
                events.extend(changes.iter().filter_map(|change| watch.event(change)));
            }
            Err(error) => {
                let event = json!({"type": "ERROR", "object": error.to_status()});
                let _client_gone = sender.send(Bytes::from(format!("{event}\n"))).await;
                return;
            }
        }
        if !events.is_empty() {
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep_until(until) => return,
            () = sender.closed() => return,
            more = changed.changed() => if more.is_err() { return },
        }
    }
}

impl Watch {
    fn selects(&self, object: &Value) -> bool {
        let here = self.namespace.is_empty() || object["metadata"]["namespace"] == self.namespace;
        here && self.labels.matches(&object["metadata"]["labels"]) && self.fields.matches(object)
    }

    fn initial(&self, store: &Store) -> (Vec<Value>, u64) {
        let snapshot = store.list(self.kind, &self.namespace);
        let chosen = snapshot.objects.iter().filter(|object| self.selects(object));
        let events = chosen.map(|object| json!({"type": "ADDED", "object": **object}));
        (events.collect(), snapshot.revision)
    }

    /// What a change looks like through the selectors: an object may enter or leave them.
    fn event(&self, change: &Change) -> Option<Value> {
        let chosen =
            |object: &Option<Arc<Value>>| object.clone().filter(|object| self.selects(object));
        match (chosen(&change.before), chosen(&change.after)) {
            (None, Some(after)) => Some(json!({"type": "ADDED", "object": *after})),
            (Some(_), Some(after)) => Some(json!({"type": "MODIFIED", "object": *after})),
            (Some(before), None) => {
                // An object that left the selection is reported as it is now.
                let object = change.after.clone().unwrap_or(before);
                Some(json!({"type": "DELETED", "object": *object}))
            }
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::registry::PODS;
    use super::*;

    #[test]
    fn an_object_enters_changes_and_leaves_a_selection() {
        let watch = Watch {
            kind: &PODS,
            namespace: String::new(),
            labels: Labels::default(),
            fields: Fields::parse("spec.nodeName=a").unwrap(),
        };
        let pod = |node: &str| Some(Arc::new(json!({"spec": {"nodeName": node}})));
        let table = [
            (None, pod("a"), Some("ADDED")),
            (pod(""), pod("a"), Some("ADDED")),
            (pod("a"), pod("a"), Some("MODIFIED")),
            (pod("a"), pod("b"), Some("DELETED")),
            (pod("a"), None, Some("DELETED")),
            (None, pod("b"), None),
        ];
        for (before, after, expected) in table {
            let change = Change { revision: 1, kind: &PODS, before, after };
            let event = watch.event(&change);
            assert_eq!(event.as_ref().and_then(|e| e["type"].as_str()), expected, "{change:?}");
        }
    }
}
