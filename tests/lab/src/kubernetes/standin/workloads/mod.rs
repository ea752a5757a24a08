//! The controllers: what turns add-ons, DaemonSets and Deployments into pods, and keeps Nodes honest.
//!
//! One loop makes a pass whenever the store has changed, and at least every [`Timing::pass`]. A pass
//! reads snapshots, decides in pure functions ([`placement`], [`addons`], parts of the others) and
//! writes only differences, so that it comes to rest.

mod addons;
mod daemonsets;
mod deployments;
mod nodes;
mod placement;
mod pods;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use super::listener::Mode;
use super::registry::{NAMESPACES, NODES};
use super::service::ApiServer;
use super::store::Store;
use crate::kubernetes::world::Observation;

/// How patient the controllers are.
#[derive(Debug, Clone, Copy)]
pub(in crate::kubernetes) struct Timing {
    /// The longest time between two passes.
    pub(in crate::kubernetes) pass: Duration,
    /// How long a node may be silent before it is `Unknown`.
    pub(in crate::kubernetes) grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        // kube-controller-manager's grace is 50 s; a lab's nodes beat every 3 s.
        Self { pass: Duration::from_millis(500), grace: Duration::from_secs(20) }
    }
}

/// Passes are at least this far apart, so that a burst of writes is one pass.
const SETTLE: Duration = Duration::from_millis(40);

/// Runs the controllers until the stand-in stops.
pub(super) async fn run(server: Arc<ApiServer>, timing: Timing, mut mode: watch::Receiver<Mode>) {
    let mut changed = server.store.subscribe();
    let mut heartbeats = nodes::Heartbeats::default();
    let mut born = None;
    loop {
        changed.mark_unchanged();
        match server.watcher.observation().await {
            Ok(observation) => {
                let now = observation.cluster.as_ref().map(|cluster| cluster.created_at.clone());
                if born.is_some() && now != born {
                    forget(&server.store, &mut heartbeats);
                }
                born = now;
                pass(&server.store, &observation, &mut heartbeats, timing.grace);
            }
            Err(error) => tracing::warn!(error = %error, "controllers wait for the AWS emulator"),
        }
        let stopped = mode.wait_for(|mode| *mode == Mode::Stopped);
        tokio::select! {
            _ = stopped => return,
            () = next_pass(&mut changed, timing.pass) => {}
        }
    }
}

async fn next_pass(changed: &mut watch::Receiver<u64>, longest: Duration) {
    tokio::time::sleep(SETTLE).await;
    // Elapsed or changed: either way it is time.
    let _elapsed = tokio::time::timeout(longest, changed.changed()).await;
}

/// One pass of all controllers.
fn pass(
    store: &Store,
    observation: &Observation,
    heartbeats: &mut nodes::Heartbeats,
    grace: Duration,
) {
    let Some(cluster) = observation.cluster.as_ref().filter(|cluster| cluster.status != "DELETING")
    else {
        forget(store, heartbeats);
        return;
    };
    if store.list(&NAMESPACES, "").objects.is_empty() {
        store.seed();
    }
    addons::reconcile(store, &cluster.addons);
    nodes::reconcile(store, &observation.instances, heartbeats, grace);
    pods::collect_garbage(store);
    daemonsets::reconcile(store);
    deployments::reconcile(store);
    pods::schedule(store);
}

/// The cluster is gone, or another has its name: its objects are forgotten.
fn forget(store: &Store, heartbeats: &mut nodes::Heartbeats) {
    if !store.list(&NAMESPACES, "").objects.is_empty() {
        tracing::info!("the cluster is gone: its objects are forgotten");
        store.clear();
        *heartbeats = nodes::Heartbeats::default();
    }
}

/// Changes an object; that it has gone in between is no failure, the next pass sees it.
fn amend(
    store: &Store,
    kind: &'static super::registry::ResourceType,
    object: &Value,
    change: impl FnOnce(&mut Value),
) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let done = store.update(kind, text("namespace"), text("name"), |current| {
        let mut next = current.clone();
        change(&mut next);
        Ok(next)
    });
    if let Err(error) = done {
        tracing::debug!(message = error.message, "a controller's write was refused");
    }
}

/// Removes an object, if it is still there.
fn remove(store: &Store, kind: &'static super::registry::ResourceType, object: &Value) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    if let Err(error) = store.delete(kind, text("namespace"), text("name")) {
        tracing::debug!(message = error.message, "was gone already");
    }
}

/// The names of all Node objects.
fn node_objects(store: &Store) -> Vec<Arc<Value>> {
    store.list(&NODES, "").objects
}
