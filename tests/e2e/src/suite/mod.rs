//! What `make e2e` shows: the stories of a fleet's and its nodes' lives, on the real parts where this
//! machine has them and on the stand-ins elsewhere, through the same commands.
//!
//! One lab and one cluster for all. [`stories`] holds one story per file; the others are what they
//! are told with: [`cluster`] and [`node`] look from outside and from inside, [`launch`] starts
//! instances of one's own making, [`killer`] kills an agent in a phase, [`remains`] looks for what a
//! lab has left behind.

pub mod cluster;
pub mod killer;
pub mod launch;
pub mod node;
pub mod poll;
pub mod remains;
pub mod stories;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use contract::ExitCode;
use contract::join_report::JoinOutcome;
use lab::aws::{Emulator, Instance};
use lab::directory::LabDirectory;
use lab::gear::NodesGear;
use lab::supervisor::Record;
use tokio::sync::OnceCell;

use crate::World;
use cluster::Cluster;
use launch::Recipe;
use node::Node;
use poll::until;

/// The longest that a healthy node may take from its launch to Ready, however busy this machine is.
const JOINED: Duration = Duration::from_secs(180);

/// The lab, the fleet on it, and the ways to look at them.
#[derive(Debug)]
pub struct Suite {
    /// The lab, and `control` pointed at it.
    pub world: World,
    /// AWS, as its operator.
    pub emulator: Emulator,
    /// Where the suite keeps its files.
    pub dir: PathBuf,
    /// Whether nodes are machines.
    pub has_machines: bool,
    /// Whether to tell the long versions.
    pub full: bool,
    cluster: OnceCell<Cluster>,
    /// Instances that stories have launched.
    launched: Mutex<Vec<String>>,
}

impl Suite {
    /// The suite on a lab that is up.
    ///
    /// # Errors
    /// When the lab says too little of itself.
    pub fn on(world: World, dir: &Path, full: bool) -> anyhow::Result<Self> {
        let directory = LabDirectory::open(&world.dir)?;
        let record = Record::of_live_lab(&directory).context("the lab is not up")?;
        let operator = record.operator.context("a lab without an operator")?;
        Ok(Self {
            emulator: Emulator::new(record.endpoint, record.region, operator),
            has_machines: record.options.nodes == NodesGear::Machine,
            world,
            dir: dir.to_owned(),
            full,
            cluster: OnceCell::new(),
            launched: Mutex::default(),
        })
    }

    /// The fleet file.
    #[must_use]
    pub fn fleet(&self) -> String {
        self.dir.join("fleet.yaml").display().to_string()
    }

    /// The fleet's cluster.
    ///
    /// # Errors
    /// When it cannot be spoken to.
    pub async fn cluster(&self) -> anyhow::Result<&Cluster> {
        self.cluster.get_or_try_init(|| Cluster::of(&self.world)).await
    }

    /// A node as it is now, machines once their PID 1 runs.
    ///
    /// # Errors
    /// When the lab knows none of that name.
    pub async fn node(&self, pool: &str, index: u64) -> anyhow::Result<Node> {
        until(JOINED, &format!("{pool}/{index} runs"), async || {
            let status = self.world.lab_status().await?;
            let entries = status["nodes"].as_array().into_iter().flatten();
            let mut entries = entries.filter(|e| e["pool"] == pool && e["index"] == index);
            let Some(entry) = entries.next() else { return Ok(None) };
            let node = Node::of(entry)?;
            Ok((!self.has_machines || node.has_booted()).then_some(node))
        })
        .await
    }

    /// What an instance of one of the fleet's pools boots from.
    ///
    /// # Errors
    /// When the pool has none that runs.
    pub async fn recipe(&self, pool: &str) -> anyhow::Result<Recipe> {
        let instances = self.emulator.instances().await?;
        let of_pool = |i: &&Instance| i.pool() == pool && i.state == "running";
        let instance = instances.iter().find(of_pool);
        Recipe::like(instance.with_context(|| format!("no instance of {pool} runs"))?)
    }

    /// Launches an instance that the lab calls `pool`/0, and waits for its PID 1.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn launch(&self, recipe: &Recipe, pool: &str) -> anyhow::Result<Node> {
        let instance = recipe.launch(&self.emulator, pool).await?;
        self.launched.lock().unwrap_or_else(PoisonError::into_inner).push(instance);
        self.node(pool, 0).await
    }

    /// Terminates nodes that a story has launched.
    ///
    /// # Errors
    /// When EC2 refuses.
    pub async fn terminate(&self, nodes: &[&Node]) -> anyhow::Result<()> {
        let ids: Vec<String> = nodes.iter().map(|node| node.instance.clone()).collect();
        launch::terminate(&self.emulator, &ids).await
    }

    /// Terminates every node that any story has launched: one that has failed leaves its own behind,
    /// and `control down` rightly waits for what is not its own.
    ///
    /// # Errors
    /// When EC2 refuses.
    pub async fn terminate_launched(&self) -> anyhow::Result<()> {
        let launched =
            std::mem::take(&mut *self.launched.lock().unwrap_or_else(PoisonError::into_inner));
        if launched.is_empty() {
            return Ok(());
        }
        launch::terminate(&self.emulator, &launched).await
    }

    /// Breaks something, or lifts what was broken.
    ///
    /// # Errors
    /// When the lab refuses.
    pub async fn fault(&self, at: &str, fault: &str) -> anyhow::Result<()> {
        self.world.lab("fault", &[at, fault]).await?.expect(ExitCode::Success)?;
        Ok(())
    }

    /// Waits until the agent calls the node ready and so does Kubernetes.
    ///
    /// # Errors
    /// When they do not.
    pub async fn joined(&self, node: &Node) -> anyhow::Result<()> {
        let what = format!("{} is Ready, and its agent says so", node.name);
        until(JOINED, &what, async || {
            let report = node.report()?;
            let last = node.said().pop();
            ensure!(report.outcome == JoinOutcome::Ready, "its console's last word: {last:?}");
            Ok(self.is_ready(node).await?.then_some(()))
        })
        .await
    }

    /// Whether Kubernetes calls the node Ready.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn is_ready(&self, node: &Node) -> anyhow::Result<bool> {
        let found = self.cluster().await?.node(&self.world, &node.name).await?;
        Ok(found.is_some_and(|node| node.ready))
    }

    /// Whether there is a Node object for it.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn is_registered(&self, node: &Node) -> anyhow::Result<bool> {
        Ok(self.cluster().await?.node(&self.world, &node.name).await?.is_some())
    }

    /// Waits until the node has named a reason on its console.
    ///
    /// # Errors
    /// When it has not within `limit`.
    pub async fn named(&self, node: &Node, reason: &str, limit: Duration) -> anyhow::Result<()> {
        let what = format!("{} names {reason} on its console", node.instance);
        until(limit, &what, async || {
            let last = node.said().pop();
            ensure!(node.has_named(reason), "its console's last word: {last:?}");
            Ok(Some(()))
        })
        .await
    }
}
