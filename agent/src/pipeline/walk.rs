//! One proving: the phases in join order, 3, 4 and 5 side by side. Where kubelet is let start, in
//! [`registration`], has a file of its own.

mod registration;

use std::cell::Cell;
use std::time::Duration;

use contract::agent_config::{CniKind, Deadlines, GpuOffer};
use contract::join_report::Repair;
use contract::names::{UNIT_KUBELET, UNIT_NODEADM_CONFIG, WATCH_SETTINGS_PATH, evidence_key};
use contract::offer::Devices;
use contract::{AgentConfig, ErrorChain, Finding, Phase, Reason, Verdict};
use jiff::Timestamp;
use serde_json::Value;

use super::budget::Budget;
use super::enforce::Gate;
use super::journal::config_hash;
use super::node::Node;
use super::points::Effect;
use super::policy::PolicySource;
use super::prove::{Matter, prove, prove_and_mend};
use super::recorder::Recorder;
use crate::aws::ec2::Ec2;
use crate::aws::s3::S3;
use crate::aws::ssm::ParameterStore;
use crate::host::systemd::UnitState;
use crate::host::{Deadline, clock, files};
use crate::kube::{self, Cluster};
use crate::phases::configure::{self, NodeConfig};
use crate::phases::gate::{CniProven, ConfigurationWritten, DriversProven, Reachable};
use crate::phases::identify::{self, Document};
use crate::phases::register::Proofs;
use crate::phases::{
    bootstrap, cloud_init, cni, drivers, nodeadm, notices, preflight, ready, register,
};
use crate::repair::{self, Climb, Ladder};
use crate::report::channel::serve;
use crate::report::parameter::ReportParameter;
use crate::report::tag::Tag;
use crate::report::{VerdictKey, evidence};

/// How long evidence may take to S3.
const UPLOAD: Duration = Duration::from_secs(10);

/// How long one round of questions to the metadata service may take.
const IMDS_ROUND: Duration = Duration::from_secs(5);

/// Who says what is soft about the pods' network.
const OUTLOOK: &str = "outlook";

/// A gate is closed; the recorder knows which, and why.
#[derive(Debug)]
pub struct Closed;

/// Why a proving ended before its end, without a fault: the next one begins at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Anew {
    /// The node has left its warm pool.
    LeftWarmPool,
    /// The configuration has changed since it was proven: the next proving has what is left of the
    /// time.
    Reconfigured,
}

/// What stays between provings.
#[derive(Debug)]
pub struct Walk<'a> {
    node: &'a Node,
    recorder: &'a Recorder,
    has_channels: bool,
    has_parameter: bool,
    anew: Cell<Option<Anew>>,
    /// How often in a row the configuration has changed under a proving.
    changes: Cell<u32>,
    /// Bucket for evidence, and the ARN and region of the instance.
    bucket: Option<(String, String, String)>,
}

/// What a proving knows once the configuration is read.
struct Known {
    document: Document,
    user_data: Option<Vec<u8>>,
    /// The node's name unless nodeadm's configuration says another.
    name: String,
    gate: Gate,
    node_config: NodeConfig,
    merged: Value,
    kube: kube::Client,
    budget: Budget,
    kubelet_runs: bool,
    units: Units,
}

/// What the metadata service has said.
struct Identified {
    document: Document,
    hostname: Option<String>,
    user_data: Option<Vec<u8>>,
}

/// How PID 1's units stood when a proving began.
#[derive(Debug)]
struct Units {
    kubelet_runs: bool,
    /// The image's own config phase.
    stock: UnitState,
    /// cloud-init's last stage.
    scripts: UnitState,
}

impl Known {
    /// What the drivers phase is told of the instance.
    fn expected(&self) -> drivers::Expected {
        drivers::Expected::of(&self.document.instance_type, &self.gate.config)
    }

    /// Whether the node is configured otherwise by now.
    fn is_outdated(&self, now: &configure::Facts) -> bool {
        let agent = now.agent.as_ref().and_then(|agent| agent.as_ref().ok());
        agent.is_some_and(|config| *config != self.gate.config)
            || config_hash(&now.merged) != config_hash(&self.merged)
    }
}

impl<'a> Walk<'a> {
    /// A walk that has not begun.
    #[must_use]
    pub const fn new(node: &'a Node, recorder: &'a Recorder) -> Self {
        Self {
            node,
            recorder,
            has_channels: false,
            has_parameter: false,
            anew: Cell::new(None),
            changes: Cell::new(0),
            bucket: None,
        }
    }

    /// Whether the proving ended without a fault, and the next one is to begin at once.
    #[must_use]
    pub const fn begins_anew(&self) -> bool {
        self.anew.get().is_some()
    }

    /// One proving from the first phase to the last.
    ///
    /// # Errors
    /// When a gate is closed.
    pub async fn once(&mut self) -> Result<(), Closed> {
        let started = Timestamp::now();
        let attempt = self.recorder.begin_attempt();
        let goes_on = self.anew.take() == Some(Anew::Reconfigured);
        if !goes_on {
            self.changes.set(0);
        }
        let started = (attempt == 1 || goes_on).then_some(started);
        let (identified, units) = tokio::join!(Box::pin(self.identify()), self.first_look());
        let known = Box::pin(self.configure(identified?, units, started)).await?;
        let mut walking = Box::pin(self.prove(&known, attempt));
        tokio::select! {
            biased;
            walked = &mut walking => return walked,
            () = Box::pin(self.outlook(&known)) => {}
        }
        walking.await
    }

    /// How the units stand that the way ahead depends on; asked beside everything else.
    async fn first_look(&self) -> Units {
        let names = [UNIT_KUBELET, bootstrap::STOCK_UNIT, cloud_init::LAST_STAGE];
        let [kubelet, stock, scripts] = self.node.systemd.show_all(names).await.unwrap_or_default();
        Units { kubelet_runs: kubelet.is_active(), stock, scripts }
    }

    /// What follows once the configuration is known.
    async fn prove(&self, known: &Known, attempt: u32) -> Result<(), Closed> {
        // nodeadm first: the others look while it works.
        let (written, reachable, drivers) = tokio::join!(
            // On the heap: together they would fill a thread's stack in an unoptimised build.
            Box::pin(self.bootstrap(known)),
            Box::pin(self.preflight(known)),
            Box::pin(self.drivers(known)),
        );
        let (reachable, username) = reachable?;
        let (drivers, devices) = drivers?;
        let written = written?;
        let cni = Box::pin(self.cni(known)).await?;
        let proofs = Proofs { drivers, reachable, written, cni };
        let name = Box::pin(self.register(known, &proofs, &username, attempt)).await?;
        Box::pin(self.ready(known, &name, devices)).await?;
        repair::forget(&self.node.root);
        self.recorder.refute_the_rest();
        Ok(())
    }

    async fn identify(&self) -> Result<Identified, Closed> {
        let phase = Phase::Identify;
        let deadline = Deadline::within(phase.cap());
        self.recorder.begin(phase);
        let gather = async || {
            identify::gather(&self.node.root, &self.node.imds, deadline.at_most(IMDS_ROUND)).await
        };
        let bare = Gate::of(AgentConfig::new("", ""));
        let proof = prove(self.recorder, &bare, phase, deadline, gather, identify::verdict).await;
        let facts = proof.facts.ok_or(Closed)?;
        let (Ok(document), Ok(user_data)) = (facts.document, facts.user_data) else {
            return Err(Closed);
        };
        self.recorder.know(|instance| {
            instance.id.clone_from(&document.instance_id);
            instance.instance_type.clone_from(&document.instance_type);
            instance.zone.clone_from(&document.availability_zone);
        });
        if proof.verdict.is_open() {
            Ok(Identified { document, hostname: facts.hostname, user_data })
        } else {
            Err(Closed)
        }
    }

    async fn configure(
        &mut self,
        identified: Identified,
        units: Units,
        started: Option<Timestamp>,
    ) -> Result<Known, Closed> {
        let Identified { document, hostname, user_data } = identified;
        let phase = Phase::Configure;
        self.recorder.begin(phase);
        let mut facts = configure::gather(&self.node.root, user_data.as_deref());
        let config = match &facts.agent {
            Some(Ok(config)) => config.clone(),
            _ => AgentConfig::new("", ""),
        };
        let budget = self.budget(&config.deadlines, &document, started);
        self.recorder.belongs_to(&config.cluster, &config.pool, budget.registration());
        self.hand_over(&config);
        self.recorder.keep_secret(user_data.as_deref().unwrap_or_default());
        let ends = notices::block_ends(config.capacity_ends.as_deref(), Timestamp::now());
        self.recorder.standing("configuration", ends.into_iter().collect());

        if !units.kubelet_runs {
            facts = configure::with_additions(&self.node.root, facts, user_data.as_deref());
        }
        self.node.way.learn(&facts.merged);
        let gate = self.open_channels(&document, config);
        let verdict = gate.enforce(configure::verdict(&facts), phase).await;
        let cluster = NodeConfig::of(&facts.merged)
            .and_then(|node_config| Ok((self.client(&document, &node_config)?, node_config)));
        let (kube, node_config) = match (verdict.is_open(), cluster) {
            (true, Ok(cluster)) => cluster,
            (true, Err(problem)) => {
                let finding = Finding::new(Reason::NodeConfigInvalid, phase, problem);
                self.recorder.end(phase, &Verdict::Fail(vec![finding]));
                return Err(Closed);
            }
            (false, _) => {
                self.recorder.end(phase, &verdict);
                return Err(Closed);
            }
        };
        let name = match node_config.named_by_instance {
            true => document.instance_id.clone(),
            false => hostname.unwrap_or_default(),
        };
        self.recorder.know(|instance| instance.name.clone_from(&name));
        self.recorder.end(phase, &verdict);
        Ok(Known {
            document,
            user_data,
            name,
            gate,
            node_config,
            merged: facts.merged,
            kube,
            budget,
            kubelet_runs: units.kubelet_runs,
            units,
        })
    }

    /// The time of a proving; `started` when it is one of those that the whole time is for.
    fn budget(
        &self,
        deadlines: &Deadlines,
        document: &Document,
        started: Option<Timestamp>,
    ) -> Budget {
        let Some(started) = started else { return Budget::again(deadlines.clone()) };
        let uptime = clock::uptime(&self.node.root).unwrap_or_default();
        let used = clock::time_used(started, document.pending(), uptime);
        Budget::first(deadlines.clone(), used)
    }

    fn client(&self, document: &Document, config: &NodeConfig) -> Result<kube::Client, String> {
        let cluster = Cluster {
            name: config.cluster.clone(),
            region: document.region.clone(),
            endpoint: config.endpoint.clone(),
            ca_pem: config.ca_pem.clone(),
            proxy: config.proxy.clone(),
        };
        kube::Client::new(cluster, self.node.credentials.clone()).map_err(|error| error.to_string())
    }

    /// Leaves for the watch what it needs of the configuration.
    fn hand_over(&self, config: &AgentConfig) {
        let path = self.node.root.path(WATCH_SETTINGS_PATH);
        let text = serde_json::to_vec(&config.watch_settings()).unwrap_or_default();
        if let Err(error) = files::write_atomic(&path, &text, 0o644) {
            tracing::warn!(error = %ErrorChain(&error), "the watch goes without its settings");
        }
    }

    /// Starts the channels that leave the node, as soon as it is known what they need; gives what
    /// decides about the node's gates.
    fn open_channels(&mut self, document: &Document, config: AgentConfig) -> Gate {
        let node = self.node;
        if !self.has_channels {
            self.has_channels = true;
            let ec2 = Ec2(node.service("EC2", "ec2", &document.region));
            let tag = Tag::new(ec2, &node.root, document.instance_id.clone());
            tokio::spawn(serve(tag, self.recorder.subscribe(), config.pool_size));
        }
        if config.cluster.is_empty() {
            return Gate::of(config);
        }
        let proxy = node.way.to(&node.endpoints.url("SSM", "ssm", &document.region));
        let store = ParameterStore::at(
            node.endpoints.overridden("SSM"),
            &document.region,
            node.credentials.clone(),
            proxy.as_deref(),
        );
        if !self.has_parameter {
            self.has_parameter = true;
            let channel = ReportParameter::new(store.clone(), &node.root, document.arn());
            tokio::spawn(serve(channel, self.recorder.subscribe(), config.pool_size));
        }
        let bucket = config.evidence_bucket.clone();
        self.bucket = bucket.map(|bucket| (bucket, document.arn(), document.region.clone()));
        Gate { policy: Some(PolicySource::new(store, &config, &node.root)), config }
    }

    /// Keeps the evidence of a failed proving, unless that of the same verdict is kept already.
    pub async fn keep_evidence(&self) {
        let (report, redactor) = (self.recorder.report(), self.recorder.redactor());
        let key = VerdictKey::of(&report).to_string();
        let kept = self.recorder.progress(Effect::KeepEvidence);
        if kept.is_some_and(|progress| progress.done && progress.key == key) {
            return;
        }
        self.recorder.before(Effect::KeepEvidence, &key);
        let root = &self.node.root;
        let bundle = evidence::gather(root, &report, &redactor).await;
        let name = evidence::name(&report);
        if let Err(error) = evidence::keep(root, &name, &bundle) {
            tracing::warn!(error = %contract::ErrorChain(&error), "the evidence is not kept");
        }
        if let Some((bucket, arn, region)) = &self.bucket {
            let s3 = S3(self.node.service("S3", "s3", region));
            let key = evidence_key(&report.cluster, arn, &name);
            let put = s3.put(bucket, &key, bundle, Deadline::within(UPLOAD)).await;
            if let Err(error) = put {
                let error = contract::ErrorChain(&error);
                tracing::warn!(%error, bucket, "the evidence stays on the node");
            }
        }
        self.recorder.after(Effect::KeepEvidence, &key);
    }

    async fn preflight(&self, known: &Known) -> Result<(Reachable, Option<String>), Closed> {
        let phase = Phase::Preflight;
        let deadline = known.budget.deadline(phase);
        self.recorder.begin(phase);
        let eks = self.node.eks(&known.document.region);
        let eks = preflight::Directory::new(eks);
        let at = preflight::Surroundings {
            root: &self.node.root,
            imds: &self.node.imds,
            credentials: &self.node.credentials,
            endpoints: &self.node.endpoints,
            kube: &known.kube,
            eks: &eks,
            host: &preflight::host::Looker::default(),
            merged: &known.merged,
            asks_ec2: !known.node_config.named_by_instance && !known.kubelet_runs,
        };
        let gather = async || preflight::gather(at, deadline).await;
        let judge =
            |facts: &preflight::Facts| preflight::verdict(facts, self.recorder.elapsed(phase));
        let proof = prove(self.recorder, &known.gate, phase, deadline, gather, judge).await;
        let reachable = Reachable::of(&proof.verdict).ok_or(Closed)?;
        let identity = proof.facts.as_ref().and_then(preflight::Facts::identity);
        Ok((reachable, identity.map(|identity| identity.username.clone())))
    }

    /// Proves the GPUs; also gives what NVML sees of them.
    async fn drivers(&self, known: &Known) -> Result<(DriversProven, Devices), Closed> {
        let phase = Phase::Drivers;
        let expected = known.expected();
        if let Some(why) = drivers::skipped(&expected) {
            self.recorder.skip(phase, why);
            return DriversProven::of(&Verdict::Pass)
                .map(|proof| (proof, Devices::default()))
                .ok_or(Closed);
        }
        let deadline = known.budget.deadline(phase);
        self.recorder.begin(phase);
        let Node { root, boot, .. } = self.node;
        let is_admitted = known.kubelet_runs || register::is_admitted(root, boot);
        // Where pods may run, their GPUs are theirs.
        let has_canary = known.gate.config.cuda_canary && !is_admitted;
        let gather = async || {
            let mut facts = drivers::gather(root, deadline).await;
            if has_canary {
                facts.ask_canary(root, &expected, deadline).await;
            }
            self.recorder.gpus(drivers::report(&facts, &expected));
            facts
        };
        let judge = |facts: &drivers::DriverFacts| drivers::verdict(facts, &expected);
        let mut ladder = Ladder::new(root, boot, known.gate.config.repair, is_admitted);
        let mend = async |facts: &drivers::DriverFacts, verdict: &Verdict| {
            let whole = known.budget.registration();
            let climb = ladder.climb(verdict, facts, &expected, whole).await;
            self.recorder.mended(phase, ladder.report());
            let look = known.budget.cap(phase).min(repair::LOOK_AFTER);
            (climb == Climb::LookAgain).then(|| known.budget.limit(phase, look))
        };
        let matter = Matter { recorder: self.recorder, gate: &known.gate, phase };
        let proof = prove_and_mend(matter, deadline, gather, judge, mend).await;
        let seen = proof.facts.map(|facts| facts.devices());
        let proven = DriversProven::of(&proof.verdict).ok_or(Closed)?;
        Ok((proven, seen.unwrap_or_default()))
    }

    async fn bootstrap(&self, known: &Known) -> Result<ConfigurationWritten, Closed> {
        let phase = Phase::Bootstrap;
        let Node { root, systemd, .. } = self.node;
        let deadline = known.budget.deadline(phase);
        self.recorder.begin(phase);
        let hash = config_hash(&known.merged);
        // A running kubelet's configuration is left alone, and what is on the disk is not written twice.
        let is_written = self.is_configured(&hash, deadline).await
            && bootstrap::mismatch(&bootstrap::written(root), &known.node_config).is_none();
        let run = !known.kubelet_runs && !is_written;
        let wants_gpus = known.gate.config.gpu_offer == GpuOffer::DevicePlugin
            && drivers::skipped(&known.expected()).is_none();
        if run {
            nodeadm::forget(root, UNIT_NODEADM_CONFIG);
            self.recorder.before(Effect::Configure, &hash);
        }
        let ec2 = self.node.ec2(&known.document.region);
        let hopeless = async || match known.node_config.named_by_instance {
            true => std::future::pending().await,
            false => nodeadm::ec2_refuses(&ec2, &known.document.instance_id).await,
        };
        let stock = run.then_some(&known.units.stock);
        let gather = async || {
            bootstrap::gather(root, systemd, stock, hopeless(), wants_gpus, deadline).await
        };
        let judge = |facts: &bootstrap::Facts| {
            let verdict = bootstrap::verdict(facts, &known.node_config);
            if verdict.is_open() {
                self.recorder.after(Effect::Configure, &hash);
            }
            verdict
        };
        let proof = prove(self.recorder, &known.gate, phase, deadline, gather, judge).await;
        ConfigurationWritten::of(&proof.verdict).ok_or(Closed)
    }

    /// Whether nodeadm's config phase has run for this configuration in this boot, for us or for a
    /// life of ours that was killed while PID 1 went on.
    async fn is_configured(&self, hash: &str, deadline: Deadline) -> bool {
        match self.recorder.progress(Effect::Configure) {
            Some(progress) if progress.key != hash => false,
            Some(progress) if progress.done => true,
            Some(_) => {
                let Node { root, systemd, .. } = self.node;
                nodeadm::has_passed(root, systemd, UNIT_NODEADM_CONFIG, deadline).await
            }
            None => false,
        }
    }

    /// Asks what is soft about the pods' network, beside everything else: nobody waits for it.
    async fn outlook(&self, known: &Known) {
        let region = &known.document.region;
        if known.gate.config.cni == CniKind::VpcCni {
            let (eks, ec2) = (self.node.eks(region), self.node.ec2(region));
            let cluster = &known.node_config.cluster;
            let outlook = cni::ask(&self.node.imds, &eks, &ec2, cluster).await;
            self.recorder.standing(OUTLOOK, outlook.findings());
        }
    }

    async fn cni(&self, known: &Known) -> Result<CniProven, Closed> {
        let phase = Phase::Cni;
        let deadline = known.budget.deadline(phase);
        self.recorder.begin(phase);
        let leftover = self.move_leftover_aside(known);
        let eks = self.node.eks(&known.document.region);
        let root = &self.node.root;
        let gather = async || {
            let facts = cni::gather(root, known.gate.config.cni, &known.kube, &eks, deadline).await;
            cni::Facts { leftover: leftover.clone(), ..facts }
        };
        let proof = prove(self.recorder, &known.gate, phase, deadline, gather, cni::verdict).await;
        CniProven::of(&proof.verdict).ok_or(Closed)
    }

    /// Moves the VPC CNI's configuration aside when it is of an earlier boot, so that the node is
    /// not called Ready before its network is up; gives why that failed. Whether it is of this
    /// boot is told by the boot that was admitted, never by a clock.
    fn move_leftover_aside(&self, known: &Known) -> Option<String> {
        let Node { root, boot, .. } = self.node;
        let is_ours = known.gate.config.cni == CniKind::VpcCni;
        if !is_ours || known.kubelet_runs || register::is_admitted(root, boot) {
            return None;
        }
        let file = cni::of_vpc_cni(root)?;
        let moved = cni::move_aside(root, &file);
        self.recorder.repaired(Repair {
            reason: Reason::CniConfigStale.name().to_owned(),
            action: format!("move `{file}` of an earlier boot aside"),
            helped: moved.is_ok(),
        });
        moved.err()
    }

    async fn ready(&self, known: &Known, name: &str, devices: Devices) -> Result<(), Closed> {
        let phase = Phase::Ready;
        let deadline = known.budget.deadline(phase);
        self.recorder.begin(phase);
        let wanted = ready::Wanted { devices, offer: known.gate.config.gpu_offer };
        let ipamd = async || match known.gate.config.cni {
            CniKind::VpcCni => ready::ipamd::look(ready::ipamd::ENDPOINT, deadline).await,
            CniKind::Host => ready::ipamd::Ipamd::Unknown,
        };
        let gather = async || {
            let node = ready::gather(&known.kube, name, wanted.offer, deadline);
            let (facts, ipamd) = tokio::join!(node, ipamd());
            ready::Facts { ipamd, ..facts }
        };
        let judge = |facts: &ready::Facts| ready::verdict(facts, wanted);
        let proof = prove(self.recorder, &known.gate, phase, deadline, gather, judge).await;
        if proof.verdict.is_open() { Ok(()) } else { Err(Closed) }
    }
}
