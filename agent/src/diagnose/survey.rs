//! Looks at everything that the phases look at, side by side, and touches nothing.

use std::time::{Duration, Instant};

use contract::agent_config::{CniKind, GpuOffer};
use contract::names::{UNIT_JOIN, UNIT_KUBELET, UNIT_NODEADM_CONFIG, UNIT_NODEADM_RUN};
use contract::{AgentConfig, ErrorChain, JoinReport};
use jiff::Timestamp;
use serde_json::Value;

use crate::host::systemd::{Systemd, UnitState};
use crate::host::{Deadline, clock};
use crate::kube::{self, Cluster};
use crate::phases::cloud_init::LAST_STAGE;
use crate::phases::configure::NodeConfig;
use crate::phases::drivers::{DriverFacts, Expected};
use crate::phases::identify::Document;
use crate::phases::nodeadm::{End, Run};
use crate::phases::{
    bootstrap, cni, configure, drivers, identify, notices, preflight, ready, register,
};
use crate::pipeline::node::Node;
use crate::report::file;

/// How long who we are may take: all else hangs on it.
const IDENTITY: Duration = Duration::from_secs(5);

/// How long one look at the network may take; the join looks again, we do not.
const NETWORK: Duration = Duration::from_secs(10);

/// How many lines of a failed unit's log are evidence.
const LOG_LINES: u32 = 8;

/// Something looked at, and how long that took.
#[derive(Debug)]
pub struct Timed<F> {
    /// What was found.
    pub facts: F,
    /// How long it took.
    pub took: Duration,
}

/// The units that the join hangs on.
#[derive(Clone, Debug, Default)]
pub struct Units {
    /// The join itself.
    pub join: UnitState,
    /// The last lines of its log, when it has failed.
    pub join_log: Vec<String>,
    /// cloud-init's last stage.
    pub cloud_final: UnitState,
    /// containerd.
    pub containerd: UnitState,
    /// kubelet.
    pub kubelet: UnitState,
    /// nodeadm's config phase, when it has failed in this boot.
    pub config: Option<Run>,
    /// nodeadm's run phase, when it has failed in this boot.
    pub run: Option<Run>,
}

/// All that was seen.
#[derive(Debug)]
pub struct Survey {
    /// When the look began.
    pub now: Timestamp,
    /// How long all of it took.
    pub took: Duration,
    /// This boot.
    pub boot: String,
    /// How long the node has been up.
    pub uptime: Option<Duration>,
    /// Phase 1.
    pub identify: Timed<identify::Facts>,
    /// Phase 2.
    pub configure: Timed<configure::Facts>,
    /// What phase 2 makes of it for the others; none when it names no cluster.
    pub node_config: Option<NodeConfig>,
    /// Phase 3; without a cluster there is no way to look along.
    pub preflight: Option<Timed<preflight::Facts>>,
    /// Phase 4; none when the instance has no GPUs to prove.
    pub drivers: Option<Timed<DriverFacts>>,
    /// What phase 4 is told of the instance.
    pub expected: Expected,
    /// Phase 5: what lies on the disk.
    pub written: bootstrap::Written,
    /// Phase 5: containerd's configuration, and the program that gets kubelet its token.
    pub disk: bootstrap::Facts,
    /// Phase 6; without a cluster there is nobody to ask.
    pub cni: Option<Timed<cni::Facts>>,
    /// The name that the Node object has or will have.
    pub name: String,
    /// Whether the gates have let kubelet start in this boot.
    pub is_admitted: bool,
    /// Phases 7 and 8: the Node object; without a cluster there is nobody to ask.
    pub node: Option<Timed<Result<Option<Value>, String>>>,
    /// Phase 8: GPUs in its ResourceSlices, where they are offered so.
    pub slices: ready::Slices,
    /// kubelet's last lines, when it runs and there is no Node object.
    pub kubelet_log: Vec<String>,
    /// What EC2 announces.
    pub notices: notices::Facts,
    /// The units that the join hangs on.
    pub units: Units,
    /// What the join itself says in this boot.
    pub join: Option<JoinReport>,
    /// Whether we are root: whoever is not sees less.
    pub is_root: bool,
}

impl Survey {
    /// The agent's configuration; the empty one when there is none that can be read.
    #[must_use]
    pub fn config(&self) -> AgentConfig {
        config_of(&self.configure.facts)
    }
}

fn config_of(facts: &configure::Facts) -> AgentConfig {
    match &facts.agent {
        Some(Ok(config)) => config.clone(),
        _ => AgentConfig::new("", ""),
    }
}

async fn timed<F>(look: impl Future<Output = F>) -> Timed<F> {
    let began = Instant::now();
    let facts = look.await;
    Timed { facts, took: began.elapsed() }
}

/// Looks at the node until the deadline at most.
pub async fn look(node: &Node, deadline: Deadline) -> Survey {
    let began = Instant::now();
    let now = Timestamp::now();
    let root = &node.root;
    let identify = timed(identify::gather(root, &node.imds, deadline.at_most(IDENTITY))).await;
    let user_data = identify.facts.user_data.as_ref().ok().and_then(Option::as_deref);
    let configure = timed(async { configure::gather(root, user_data) }).await;
    let config = config_of(&configure.facts);
    let node_config = NodeConfig::of(&configure.facts.merged).ok();
    let written = bootstrap::written(root);
    let document = identify.facts.document.as_ref().ok();
    let way = Way::of(node, document, node_config.as_ref(), &written);
    let instance_type = document.map(|d| d.instance_type.as_str()).unwrap_or_default();
    let expected = Expected::of(instance_type, &config);
    let name = name(&identify.facts, node_config.as_ref(), &written);
    let soon = deadline.at_most(NETWORK);
    let (preflight, drivers, cni, object, slices, notices, units) = tokio::join!(
        // On the heap: together they would fill a thread's stack in an unoptimised build.
        Box::pin(way.preflight(node, &configure.facts.merged, soon)),
        Box::pin(proof_of_gpus(node, &expected, deadline)),
        Box::pin(way.cni(node, &config, document, soon)),
        way.object(&name, soon),
        way.slices(&name, config.gpu_offer, soon),
        notices::gather(&node.imds, deadline.at_most(notices::ROUND)),
        units(&node.systemd),
    );
    let is_missing = object.as_ref().is_some_and(|node| !matches!(node.facts, Ok(Some(_))));
    let kubelet_log = match is_missing && units.kubelet.exists() {
        true => node.systemd.tail(UNIT_KUBELET, register::LOG_LINES).await,
        false => Vec::new(),
    };
    let join = file::read(root).ok().filter(|report| report.boot == node.boot);
    let wants_gpus =
        config.gpu_offer == GpuOffer::DevicePlugin && drivers::skipped(&expected).is_none();
    Survey {
        now,
        took: began.elapsed(),
        disk: bootstrap::look(root, None, wants_gpus),
        boot: node.boot.clone(),
        uptime: clock::uptime(root),
        is_admitted: register::is_admitted(root, &node.boot),
        is_root: nix::unistd::geteuid().is_root(),
        node: object,
        slices,
        identify,
        configure,
        node_config,
        preflight,
        drivers,
        expected,
        written,
        cni,
        name,
        kubelet_log,
        notices,
        units,
        join,
    }
}

/// The name that the Node object has: what kubelet was told, else what nodeadm would tell it.
fn name(
    identify: &identify::Facts,
    node_config: Option<&NodeConfig>,
    written: &bootstrap::Written,
) -> String {
    let id = || identify.document.as_ref().map(|d| d.instance_id.clone()).unwrap_or_default();
    match (&written.node_name, node_config) {
        (Some(name), _) => name.clone(),
        (None, Some(config)) if config.named_by_instance => id(),
        _ => identify.hostname.clone().unwrap_or_default(),
    }
}

async fn proof_of_gpus(
    node: &Node,
    expected: &Expected,
    deadline: Deadline,
) -> Option<Timed<DriverFacts>> {
    if drivers::skipped(expected).is_some() {
        return None;
    }
    Some(timed(drivers::gather(&node.root, deadline)).await)
}

/// The way to the cluster, as far as the node's configuration says it.
struct Way(Option<kube::Client>);

impl Way {
    /// By the NodeConfig; where it names no cluster, by what nodeadm has written for kubelet.
    fn of(
        node: &Node,
        document: Option<&Document>,
        config: Option<&NodeConfig>,
        written: &bootstrap::Written,
    ) -> Self {
        let on_disk = written.cluster.as_ref().ok();
        let region = document.map(|d| d.region.clone());
        let region = region.filter(|region| !region.is_empty());
        let region = region.or_else(|| on_disk.map(|cluster| cluster.region.clone()));
        let asked = config.map(|config| Cluster {
            name: config.cluster.clone(),
            region: region.unwrap_or_default(),
            endpoint: config.endpoint.clone(),
            ca_pem: config.ca_pem.clone(),
            proxy: config.proxy.clone(),
        });
        let cluster = asked.or_else(|| on_disk.cloned());
        let client = cluster.and_then(|c| kube::Client::new(c, node.credentials.clone()).ok());
        Self(client)
    }

    async fn preflight(
        &self,
        node: &Node,
        merged: &Value,
        deadline: Deadline,
    ) -> Option<Timed<preflight::Facts>> {
        let kube = self.0.as_ref()?;
        let eks = preflight::Directory::new(node.eks(&kube.cluster().region));
        let named_by_instance = NodeConfig::of(merged).is_ok_and(|c| c.named_by_instance);
        let at = preflight::Surroundings {
            root: &node.root,
            imds: &node.imds,
            credentials: &node.credentials,
            endpoints: &node.endpoints,
            kube,
            eks: &eks,
            host: &preflight::host::Looker::default(),
            merged,
            asks_ec2: !named_by_instance,
        };
        Some(timed(preflight::gather(at, deadline)).await)
    }

    async fn cni(
        &self,
        node: &Node,
        config: &AgentConfig,
        document: Option<&Document>,
        deadline: Deadline,
    ) -> Option<Timed<cni::Facts>> {
        let kube = self.0.as_ref()?;
        let eks = node.eks(document.map_or(&kube.cluster().region, |d| &d.region));
        let cluster = &kube.cluster().name;
        let ec2 = node.ec2(&kube.cluster().region);
        let look = async {
            let (facts, outlook) = tokio::join!(
                cni::gather(&node.root, config.cni, kube, &eks, deadline),
                cni::ask(&node.imds, &eks, &ec2, cluster),
            );
            match config.cni {
                CniKind::VpcCni => cni::Facts { outlook, ..facts },
                CniKind::Host => facts,
            }
        };
        Some(timed(look).await)
    }

    async fn object(
        &self,
        name: &str,
        deadline: Deadline,
    ) -> Option<Timed<Result<Option<Value>, String>>> {
        let kube = self.0.as_ref().filter(|_| !name.is_empty())?;
        let node = timed(kube.node(name, deadline)).await;
        let facts = node.facts.map_err(|error| ErrorChain(&error).to_string());
        Some(Timed { facts, took: node.took })
    }

    async fn slices(&self, name: &str, offer: GpuOffer, deadline: Deadline) -> ready::Slices {
        match self.0.as_ref().filter(|_| !name.is_empty()) {
            Some(kube) => ready::look_at_slices(kube, name, offer, deadline).await,
            None => ready::Slices::NotAsked,
        }
    }
}

async fn units(systemd: &Systemd) -> Units {
    let show = async |unit| systemd.show(unit).await.unwrap_or_default();
    let (join, cloud_final, containerd, kubelet, config, run) = tokio::join!(
        show(UNIT_JOIN),
        show(LAST_STAGE),
        show(register::CONTAINERD),
        show(UNIT_KUBELET),
        failed_run(systemd, UNIT_NODEADM_CONFIG),
        failed_run(systemd, UNIT_NODEADM_RUN),
    );
    let join_log = match join.active.as_str() {
        "failed" => systemd.tail(UNIT_JOIN, LOG_LINES).await,
        _ => Vec::new(),
    };
    Units { join, join_log, cloud_final, containerd, kubelet, config, run }
}

/// The last run of a phase of nodeadm, when PID 1 knows that it failed.
async fn failed_run(systemd: &Systemd, unit: &str) -> Option<Run> {
    let state = systemd.show(unit).await.ok().filter(|state| state.active == "failed")?;
    let log = systemd.tail(unit, LOG_LINES).await;
    Some(Run { end: End::Failed { result: state.result, status: state.exit_status }, log })
}
