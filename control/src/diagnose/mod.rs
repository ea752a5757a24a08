//! Says of each node how far it is and, when it does not come, why.
//!
//! [`survey`](mod@survey) reads the whole fleet in few calls; [`verdict`] judges each node, purely; together they
//! are [`node_verdicts`], which `status`, `diagnose` and the layers' gates share. For one node,
//! [`gather`] reads everything that can bear on it, side by side, and [`rules`] turns that evidence
//! into ranked causes, purely. [`pools`] are the node groups behind the nodes, [`layers`] the rows
//! above them.

pub mod facts;
pub mod gather;
pub mod layers;
pub mod pools;
pub mod rules;
pub mod survey;
pub mod verdict;

use std::collections::BTreeMap;

use contract::Finding;
use contract::Phase;
use jiff::Timestamp;
use serde::Serialize;

pub use facts::{Known, NodeEvidence, NodeState, Stage};

use crate::aws::{AwsError, Clients};
use crate::kube::Cluster;

/// What is concluded of one node of the fleet.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeVerdict {
    /// Instance id.
    pub instance: String,
    /// Name of its pool.
    pub pool: String,
    /// Its place in the pool, by age: `pool/index` names it on the command line.
    pub index: usize,
    /// Name of its Node object, once it has one.
    pub node_name: Option<String>,
    /// Layer that its pool belongs to: `system` or `gpu`.
    pub layer: String,
    /// Availability zone.
    pub zone: String,
    /// Instance type.
    pub instance_type: String,
    /// EC2's state of the instance.
    pub ec2_state: String,
    /// How far it has come.
    pub stage: Stage,
    /// The phase of its join, when one says so.
    pub phase: Option<Phase>,
    /// Whether a gate may go on, and how.
    pub state: NodeState,
    /// GPUs that its instance type has; where MIG divides them and its parts are offered, with these.
    pub gpus_expected: Option<u32>,
    /// How many of them it offers to pods.
    pub gpus_offered: Option<u32>,
    /// What is counted: `GPUs`, or `GPUs and MIG devices`.
    #[serde(skip)]
    pub gpus_unit: &'static str,
    /// Named causes, the first one first.
    pub reasons: Vec<Finding>,
}

impl NodeVerdict {
    /// `pool/index`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}/{}", self.pool, self.index)
    }

    /// Where it is in its way, in a word or two: the phase while it joins, else the stage.
    #[must_use]
    pub fn progress(&self) -> &'static str {
        match (self.stage, self.phase) {
            (Stage::NotBootstrapped, Some(phase)) => phase.label(),
            (Stage::NotBootstrapped, None) => "booting",
            (Stage::Gone, _) => "gone",
            (Stage::Unknown, _) => "unknown",
            (Stage::NeverBooted, _) => "launched",
            (Stage::NotRegistered, _) => "register",
            (Stage::NotReady, _) => "NotReady",
            (Stage::WithoutGpus, _) if self.state == NodeState::Joining => "proving",
            (Stage::WithoutGpus, _) => "unproven",
            (Stage::Proven, _) => "Ready",
        }
    }

    /// Whether it is the node that somebody means by `name`.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.instance == name || self.node_name.as_deref() == Some(name) || self.place() == name
    }
}

/// Judges every live instance of a fleet in one pass of few calls, ordered by pool and age.
///
/// A channel that cannot be read makes its facts Unknown and fails nothing.
///
/// # Errors
/// When EC2 does not list the instances.
pub async fn node_verdicts(
    clients: &Clients,
    cluster: Option<&Cluster>,
    fleet: &str,
) -> Result<Vec<NodeVerdict>, AwsError> {
    let survey = survey::survey(clients, cluster, fleet).await?;
    Ok(judge(&survey.nodes, Timestamp::now()).into_iter().map(|(verdict, _)| verdict).collect())
}

/// Judges the live ones among the evidence, and numbers them within their pools by age.
#[must_use]
pub fn judge(evidence: &[NodeEvidence], now: Timestamp) -> Vec<(NodeVerdict, &NodeEvidence)> {
    let mut live: Vec<&NodeEvidence> =
        evidence.iter().filter(|one| one.instance.is_live()).collect();
    live.sort_by(|a, b| {
        let key = |one: &NodeEvidence| (one.instance.launched, one.instance.launch_index);
        (a.instance.layer != "system", &a.instance.pool)
            .cmp(&(b.instance.layer != "system", &b.instance.pool))
            .then(key(a).cmp(&key(b)))
            .then(a.instance.id.cmp(&b.instance.id))
    });
    let mut next: BTreeMap<&str, usize> = BTreeMap::new();
    live.into_iter()
        .map(|one| {
            let next = next.entry(&one.instance.pool).or_default();
            let index = *next;
            *next += 1;
            (verdict_of(one, index, now), one)
        })
        .collect()
}

/// The verdict on one instance at its place in the pool.
#[must_use]
pub fn verdict_of(evidence: &NodeEvidence, index: usize, now: Timestamp) -> NodeVerdict {
    let conclusion = verdict::conclude(evidence, now);
    let instance = &evidence.instance;
    let node = evidence.node.present();
    let offered = evidence.offered().present().copied();
    NodeVerdict {
        instance: instance.id.clone(),
        pool: instance.pool.clone(),
        index,
        node_name: node.map(|node| node.name.clone()),
        layer: instance.layer.clone(),
        zone: instance.zone.clone(),
        instance_type: instance.instance_type.clone(),
        ec2_state: instance.state.clone(),
        stage: conclusion.stage,
        phase: conclusion.phase,
        state: conclusion.state,
        gpus_expected: offered.map_or(evidence.gpus_expected, |offered| Some(offered.wanted)),
        gpus_offered: offered.map(|offered| offered.offered),
        gpus_unit: evidence.unit(),
        reasons: conclusion.reasons,
    }
}

/// How often each cause stands first, the most frequent one first.
#[must_use]
pub fn histogram<'a>(verdicts: impl IntoIterator<Item = &'a NodeVerdict>) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for verdict in verdicts.into_iter().filter(|verdict| verdict.state == NodeState::Failed) {
        let cause = verdict.reasons.first().map_or("Unknown", |finding| finding.reason.as_str());
        *counts.entry(cause).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().map(|(name, n)| (name.to_owned(), n)).collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    counts
}

#[cfg(test)]
pub(crate) mod samples;
