//! Says it on the Node: the condition, level-triggered, and events, each once.
//!
//! The API server is asked only when there is something to write, or a heartbeat is due.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use contract::{ErrorChain, names};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::condition::{self, FIELD_MANAGER, HEARTBEAT, Monitor, NODE_MONITORING_AGENT};
use super::evidence::is_registered;
use super::health::{Notice, Standing};
use super::keeper::View;
use crate::aws::{Imds, RoleCredentials};
use crate::host::{Deadline, Root};
use crate::kube::{Client, Event, KubeError};

/// How long one exchange with the API server may take.
const EXCHANGE: Duration = Duration::from_secs(15);
/// Between two tries, the first and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// How many events wait at most; the oldest go first.
const WAITING: usize = 64;

/// Says it until nobody is left to hear of anything.
pub(super) async fn run(
    root: Root,
    mut view: watch::Receiver<Arc<View>>,
    mut notices: mpsc::Receiver<Notice>,
) {
    let mut teller = Teller::new(root);
    loop {
        let now = Arc::clone(&view.borrow_and_update());
        if is_registered(&now.observed) {
            teller.say(&now).await;
        }
        let again = teller.again();
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            Some(notice) = notices.recv() => teller.queue(notice),
            () = sleep_until(again) => {}
        }
    }
}

struct Teller {
    root: Root,
    client: Option<Client>,
    /// What the Node has been known to say, under which type, and since when.
    written: Option<(Standing, Instant)>,
    /// What eks-node-monitoring-agent was, and when we looked.
    monitor: Option<(Monitor, Instant)>,
    events: VecDeque<Event>,
    /// What could not be said is tried again then, and how long to wait after that.
    refused: Option<(Option<Standing>, Instant, Duration)>,
}

impl Teller {
    const fn new(root: Root) -> Self {
        Self {
            root,
            client: None,
            written: None,
            monitor: None,
            events: VecDeque::new(),
            refused: None,
        }
    }

    fn queue(&mut self, notice: Notice) {
        let kind = if notice.is_warning { "Warning" } else { "Normal" };
        let at = condition::spell(Timestamp::now());
        let event = Event { reason: notice.reason, message: notice.message, kind, at };
        if self.events.len() >= WAITING {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// When there is something to try again; never at once.
    fn again(&self) -> Instant {
        let now = Instant::now();
        match &self.refused {
            Some((_, at, _)) if *at > now => *at,
            Some(_) => now + RETRY.0,
            None => now + HEARTBEAT,
        }
    }

    /// Makes the Node say it, if it does not. Something new to say is tried at once; the same again
    /// only after a wait.
    async fn say(&mut self, view: &View) {
        let standing = view.health.standing.as_ref();
        let is_said = standing.is_none_or(|standing| {
            self.written.as_ref().is_some_and(|(said, at)| {
                condition::is_same(said, standing) && at.elapsed() < HEARTBEAT
            })
        });
        if is_said && self.events.is_empty() {
            self.refused = None;
            return;
        }
        let wait = match &self.refused {
            Some((said, until, wait)) if is_as(said.as_ref(), standing) => {
                if Instant::now() < *until {
                    return;
                }
                (*wait * 2).min(RETRY.1)
            }
            _ => RETRY.0,
        };
        let node = view.observed.snapshot.hostname.as_str();
        match self.exchange(node, standing.filter(|_| !is_said)).await {
            Ok(()) => self.refused = None,
            Err(error) => {
                tracing::debug!(error = %ErrorChain(&error), "the Node cannot be told yet");
                // The next try starts with a client of its own: the cluster's CA may have changed.
                self.client = None;
                self.refused = Some((standing.cloned(), Instant::now() + wait, wait));
            }
        }
    }

    async fn exchange(&mut self, node: &str, unsaid: Option<&Standing>) -> Result<(), KubeError> {
        let deadline = Deadline::within(EXCHANGE);
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let credentials = RoleCredentials::new(Arc::new(Imds::from_env()));
                Client::from_kubeconfig(&self.root, credentials)?
            }
        };
        if let Some(standing) = unsaid {
            self.write(&client, node, standing, deadline).await?;
        }
        while let Some(event) = self.events.front() {
            match client.create_event(node, event, deadline).await {
                Ok(()) => {}
                // It will not be taken another time either.
                Err(error @ (KubeError::Forbidden(_) | KubeError::NotFound(_))) => {
                    tracing::warn!(error = %ErrorChain(&error), reason = event.reason, "no event");
                }
                Err(error) => return Err(error),
            }
            self.events.pop_front();
        }
        self.client = Some(client);
        Ok(())
    }

    /// Writes the condition, if the Node does not say it.
    async fn write(
        &mut self,
        client: &Client,
        node: &str,
        standing: &Standing,
        deadline: Deadline,
    ) -> Result<(), KubeError> {
        let object = client.node(node, deadline).await?;
        let Some(object) = object else {
            return Err(KubeError::NotFound(format!("node `{node}` is not registered yet")));
        };
        let kind = condition::kind(&object, self.monitor(client, deadline).await);
        let existing = condition::existing(&object, kind);
        let planned = condition::plan(existing.as_ref(), kind, standing, Timestamp::now());
        if let Some(condition) = planned {
            client.set_node_condition(node, &condition, FIELD_MANAGER, deadline).await?;
            let changed = existing.is_none_or(|existing| existing.status != condition.status);
            let (status, reason) = (&condition.status, &condition.reason);
            tracing::info!(kind, status, reason, changed, "node condition written");
        }
        // What we said under our own type would be left to go stale.
        let own = names::CONDITION_GPU_NODE_HEALTHY;
        if kind != own && condition::existing(&object, own).is_some() {
            client.remove_node_condition(node, own, FIELD_MANAGER, deadline).await?;
        }
        self.written = Some((standing.clone(), Instant::now()));
        Ok(())
    }

    async fn monitor(&mut self, client: &Client, deadline: Deadline) -> Monitor {
        if let Some((monitor, at)) = self.monitor
            && at.elapsed() < HEARTBEAT
        {
            return monitor;
        }
        let monitor = match client.daemonset(NODE_MONITORING_AGENT, deadline).await {
            Ok(daemonset) => condition::monitor(daemonset.as_ref()),
            Err(error) => {
                tracing::debug!(error = %ErrorChain(&error), "who writes the condition is unknown");
                Monitor::Unknown
            }
        };
        self.monitor = Some((monitor, Instant::now()));
        monitor
    }
}

/// Whether two things to say are the same.
fn is_as(one: Option<&Standing>, other: Option<&Standing>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => condition::is_same(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}
