//! Watches the emulator's instances, boots those that run, ends those that do not, and tells the
//! emulator what Kubernetes knows of them.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use contract::ErrorChain;
use contract::names::TAG_POOL;
use tokio::task::JoinHandle;

use super::NO_NODE_TAG;
use super::loopback::Addresses;
use super::node::{Node, NodeView, Surroundings};
use crate::aws::{Instance, MadeImage};
use crate::faults::effects::Undo;
use crate::faults::{Entry, Fault, FaultError, Target};
use crate::kubernetes;
use crate::nodes::machine::Ground;
use crate::processes::ProcessId;

/// How often the emulator's instances are looked at.
const POLL: Duration = Duration::from_millis(250);
/// How often an unchanged state of the nodes is reported again.
const REPORT_AGAIN: Duration = Duration::from_secs(5);
/// How often the nodes' uptime is written.
const TICK: Duration = Duration::from_secs(2);

/// The instance runner.
#[derive(Debug)]
pub struct Runner {
    around: Surroundings,
    addresses: tokio::sync::Mutex<Addresses>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    nodes: BTreeMap<String, Arc<Node>>,
    ending: HashSet<String>,
    remembered: Vec<(Target, Fault)>,
    everywhere: Vec<(Fault, Undo)>,
}

/// The runner's tasks; dropping them ends the watching.
#[derive(Debug)]
pub struct Watching(Vec<JoinHandle<()>>);

impl Drop for Watching {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// Whether a node boots from the instance.
fn boots(instance: &Instance) -> bool {
    instance.tags.get(NO_NODE_TAG).is_none_or(|pool| instance.tags.get(TAG_POOL) != Some(pool))
}

impl Runner {
    /// A runner without nodes.
    #[must_use]
    pub fn new(around: Surroundings, addresses: Addresses) -> Arc<Self> {
        Arc::new(Self {
            around,
            addresses: tokio::sync::Mutex::new(addresses),
            known: Mutex::default(),
        })
    }

    /// Starts watching.
    #[must_use]
    pub fn start(self: &Arc<Self>) -> Watching {
        Watching(vec![
            tokio::spawn(Arc::clone(self).watch()),
            tokio::spawn(Arc::clone(self).report()),
            tokio::spawn(Arc::clone(self).tick()),
        ])
    }

    async fn watch(self: Arc<Self>) {
        loop {
            match self.around.emulator.instances().await {
                Ok(instances) => self.follow(instances).await,
                Err(error) => tracing::debug!(%error, "instances not read"),
            }
            if let Some(ground) = &self.around.ground {
                self.follow_images(ground).await;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn follow(self: &Arc<Self>, instances: Vec<Instance>) {
        // A machine that is stopped keeps its disk; a process node has none worth keeping.
        let keeps_disks = self.around.ground.is_some();
        let is_stopped = |instance: &Instance| {
            keeps_disks && ["stopping", "stopped"].contains(&instance.state.as_str())
        };
        let there: HashSet<String> = instances
            .iter()
            .filter(|i| boots(i) && (i.state == "running" || is_stopped(i)))
            .map(|i| i.instance_id.clone())
            .collect();
        for instance in instances {
            if !there.contains(&instance.instance_id) {
                continue;
            }
            let known = self.known().nodes.get(&instance.instance_id).cloned();
            match known {
                Some(node) => {
                    node.follow_power(is_stopped(&instance));
                    node.follow_reboots(&self.around, instance.reboots);
                }
                None => self.boot(instance).await,
            }
        }
        let gone: Vec<Arc<Node>> = {
            let mut known = self.known();
            let gone: Vec<_> = known
                .nodes
                .iter()
                .filter(|(id, _)| !there.contains(*id) && !known.ending.contains(*id))
                .map(|(id, node)| (id.clone(), Arc::clone(node)))
                .collect();
            known.ending.extend(gone.iter().map(|(id, _)| id.clone()));
            gone.into_iter().map(|(_, node)| node).collect()
        };
        for node in gone {
            let runner = Arc::clone(self);
            tokio::spawn(async move { runner.end(&node).await });
        }
    }

    /// Keeps the disks of new images, one after the other, and says so: an image is pending until then.
    async fn follow_images(&self, ground: &Arc<Ground>) {
        let emulator = &self.around.emulator;
        let made = match emulator.made_images().await {
            Ok(made) => made,
            Err(error) => return tracing::debug!(%error, "images not read"),
        };
        for MadeImage { image_id, source_instance_id, .. } in
            made.into_iter().filter(|image| image.disk_kept.is_none())
        {
            let Some(node) = self.known().nodes.get(&source_instance_id).cloned() else {
                tracing::warn!(
                    image = image_id,
                    instance = source_instance_id,
                    "no machine to keep the disk of"
                );
                let _ = emulator.report_disk(&image_id, false).await;
                continue;
            };
            let (ground, id) = (Arc::clone(ground), image_id.clone());
            let copied = tokio::task::spawn_blocking(move || node.keep_disk(&ground, &id));
            let outcome = match copied.await {
                Ok(None) => continue,
                Ok(Some(outcome)) => outcome,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            };
            if let Err(error) = &outcome {
                tracing::warn!(image = image_id, error = %ErrorChain(error), "disk not kept");
            }
            if let Err(error) = emulator.report_disk(&image_id, outcome.is_ok()).await {
                tracing::debug!(%error, "disk not reported; the next look keeps it again");
            }
        }
    }

    async fn boot(self: &Arc<Self>, instance: Instance) {
        let (address, imds) = match self.addresses.lock().await.take().await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::error!(instance = %instance.instance_id, %error, "not booted");
                return;
            }
        };
        let faults = self.take_remembered(&instance);
        let node = Node::new(&self.around, instance, address);
        let id = node.instance.instance_id.clone();
        self.known().nodes.insert(id, Arc::clone(&node));
        let around = self.around.clone();
        tokio::spawn(async move { node.boot(&around, imds, faults).await });
    }

    /// A remembered fault is laid on the first instance that fits, and goes with it.
    fn take_remembered(&self, instance: &Instance) -> Vec<Fault> {
        let Some(index) = instance.index else { return Vec::new() };
        let target = Target::Node { pool: instance.pool().to_owned(), index };
        let mut known = self.known();
        let (now, later) =
            std::mem::take(&mut known.remembered).into_iter().partition(|(at, _)| *at == target);
        known.remembered = later;
        let now: Vec<(Target, Fault)> = now;
        now.into_iter().map(|(_, fault)| fault).collect()
    }

    async fn end(&self, node: &Node) {
        let id = &node.instance.instance_id;
        let left = node.end(&self.around).await;
        if !left.is_empty() {
            tracing::error!(instance = %id, ?left, "processes survived the instance");
        }
        self.addresses.lock().await.give_back(node.address);
        let mut known = self.known();
        known.nodes.remove(id);
        known.ending.remove(id);
        tracing::info!(instance = %id, "node ended");
    }

    async fn report(self: Arc<Self>) {
        let plane = self.around.world.plane.clone();
        let emulator = &self.around.emulator;
        let (mut last, mut at) = (None, Instant::now());
        loop {
            let objects = plane.nodes();
            plane.publish(self.slices(&objects));
            let nodes: BTreeMap<String, bool> = objects
                .into_iter()
                .filter(|node| !node.instance_id.is_empty())
                .map(|node| (node.instance_id, node.ready))
                .collect();
            let coredns = plane.available("kube-system", "coredns");
            let state = (nodes, coredns);
            if last.as_ref() != Some(&state) || at.elapsed() > REPORT_AGAIN {
                let told = async {
                    emulator.report_nodes(&state.0).await?;
                    emulator.report_coredns(state.1).await
                };
                match told.await {
                    Ok(()) => (last, at) = (Some(state), Instant::now()),
                    Err(error) => tracing::debug!(%error, "node states not reported"),
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// What Ready nodes offer by DRA: the driver's pod needs the node's network.
    fn slices(&self, objects: &[kubernetes::NodeView]) -> Vec<serde_json::Value> {
        let known = self.known();
        let of = |object: &kubernetes::NodeView| {
            let node = known.nodes.get(&object.instance_id)?;
            // A second offer must be there before the first, or a join that ends with it has missed it.
            let is_up = object.ready || node.offers_twice();
            if is_up { node.resource_slice(&object.name) } else { None }
        };
        objects.iter().filter_map(of).collect()
    }

    async fn tick(self: Arc<Self>) {
        loop {
            let nodes: Vec<Arc<Node>> = self.known().nodes.values().cloned().collect();
            for node in nodes {
                node.tick();
                node.reboot_when_asked(&self.around);
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// What machines stand on, where nodes are machines.
    #[must_use]
    pub fn ground(&self) -> Option<&Ground> {
        self.around.ground.as_deref()
    }

    /// All nodes, by pool and index.
    #[must_use]
    pub fn view(&self) -> Vec<NodeView> {
        let nodes: Vec<Arc<Node>> = self.known().nodes.values().cloned().collect();
        let mut views: Vec<NodeView> = nodes.iter().map(|node| node.view()).collect();
        views.sort_by(|a, b| (&a.pool, a.index, &a.instance).cmp(&(&b.pool, b.index, &b.instance)));
        views
    }

    /// Faults in force and remembered.
    #[must_use]
    pub fn faults(&self) -> Vec<Entry> {
        let entry = |target: String, fault: String, state| Entry { target, fault, state };
        let mut entries = Vec::new();
        for node in self.view() {
            let target = match node.index {
                Some(index) => format!("{}/{index}", node.pool),
                None => node.instance.clone(),
            };
            let active = node.faults.into_iter();
            entries.extend(active.map(|fault| entry(target.clone(), fault, "active")));
        }
        let known = self.known();
        for (fault, _) in &known.everywhere {
            entries.push(entry("all".into(), fault.to_string(), "active"));
        }
        for (target, fault) in &known.remembered {
            entries.push(entry(target.to_string(), fault.to_string(), "remembered"));
        }
        entries
    }

    /// Breaks something; answers what happened in one sentence.
    ///
    /// # Errors
    /// When it cannot be broken like this.
    pub async fn break_it(&self, target: Target, fault: Fault) -> Result<String, FaultError> {
        if target == Target::All {
            return self.break_everything(fault).await;
        }
        if matches!(fault, Fault::Network(_)) && self.around.ground.is_none() {
            return Err(FaultError::NeedsMachine(fault.to_string()));
        }
        let Some(node) = self.find(&target) else {
            let mut known = self.known();
            if !known.remembered.contains(&(target.clone(), fault.clone())) {
                known.remembered.push((target.clone(), fault.clone()));
            }
            return Ok(format!("{target}: {fault} is remembered until this node boots"));
        };
        node.add_fault(&self.around, fault.clone()).await?;
        Ok(format!("{target} ({}): {fault}", node.instance.instance_id))
    }

    async fn break_everything(&self, fault: Fault) -> Result<String, FaultError> {
        if !fault.fits_all() {
            return Err(FaultError::NeedsNode(fault.to_string()));
        }
        if !self.known().everywhere.iter().any(|(known, _)| *known == fault)
            && let Some(undo) = self.around.world.lay(&fault, None).await?
        {
            self.known().everywhere.push((fault.clone(), undo));
        }
        Ok(format!("all: {fault}"))
    }

    /// Lifts all faults of a target; `all` lifts every fault there is.
    ///
    /// # Errors
    /// When something cannot be put back.
    pub async fn clear(&self, target: &Target) -> Result<String, FaultError> {
        let nodes: Vec<Arc<Node>> = match target {
            Target::All => self.known().nodes.values().cloned().collect(),
            Target::Node { .. } => self.find(target).into_iter().collect(),
        };
        let everywhere = {
            let mut known = self.known();
            known.remembered.retain(|(at, _)| *target != Target::All && at != target);
            if *target == Target::All { std::mem::take(&mut known.everywhere) } else { Vec::new() }
        };
        for (_, undo) in everywhere {
            self.around.world.take_back(undo).await?;
        }
        for node in nodes {
            node.clear_faults(&self.around).await?;
        }
        Ok(format!("{target}: no faults"))
    }

    /// Lifts one fault of one node.
    ///
    /// # Errors
    /// When there is no such node, or something cannot be put back.
    pub async fn lift(&self, target: &Target, fault: &Fault) -> Result<String, FaultError> {
        let Some(node) = self.find(target) else {
            return Err(FaultError::NeedsNode(fault.to_string()));
        };
        node.lift_fault(&self.around, fault).await?;
        Ok(format!("{target}: {fault} is lifted"))
    }

    fn find(&self, target: &Target) -> Option<Arc<Node>> {
        let Target::Node { pool, index } = target else { return None };
        let known = self.known();
        let mut nodes = known.nodes.iter().filter(|(id, _)| !known.ending.contains(*id));
        nodes
            .find(|(_, n)| n.instance.pool() == pool && n.instance.index == Some(*index))
            .map(|(_, node)| Arc::clone(node))
    }

    /// Ends every node. Returns the processes that survived.
    pub async fn end_all(&self) -> Vec<ProcessId> {
        let nodes: Vec<Arc<Node>> = self.known().nodes.values().cloned().collect();
        let mut ending = tokio::task::JoinSet::new();
        for node in nodes {
            let around = self.around.clone();
            ending.spawn(async move { node.end(&around).await });
        }
        let mut left = Vec::new();
        while let Some(ended) = ending.join_next().await {
            left.extend(ended.unwrap_or_default());
        }
        self.known().nodes.clear();
        left
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
