//! What a walk over the layers came to: what `-o json` prints and the screens are drawn from.

use std::collections::BTreeMap;

use contract::{ExitCode, StepOutcome};
use serde::Serialize;

use crate::layers::blocks::Block;
use crate::layers::pools::replace::Replacement;
use crate::stack::{Gate, Layer, Step};

/// How the nodes of a layer stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeTally {
    /// Pool by pool.
    pub pools: Vec<PoolTally>,
    /// Instances by the reason that keeps them out.
    pub reasons: BTreeMap<String, Vec<String>>,
    /// EC2's words, by the pool that it launches nothing more of.
    pub refused: BTreeMap<String, String>,
    /// Nodes that were replaced.
    pub replaced: Vec<Replacement>,
}

/// How the nodes of a pool stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolTally {
    /// Name of the pool.
    pub name: String,
    /// Its class.
    pub class: String,
    /// Nodes that are asked for.
    pub desired: u32,
    /// Nodes that must be ready for the gate to open.
    #[serde(skip)]
    pub quorum: u32,
    /// Ready, with their GPUs proven.
    pub ready: u32,
    /// With a reason.
    pub failed: u32,
    /// Neither yet.
    pub joining: u32,
}

/// One step and its end.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepReport {
    /// To what kind of thing.
    pub resource: &'static str,
    /// Its name.
    pub name: String,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: StepOutcome,
}

impl StepReport {
    pub(crate) fn of<Op>(step: &Step<Op>, outcome: StepOutcome) -> Self {
        Self { resource: step.resource, name: step.name.clone(), outcome }
    }

    /// `load balancer net/a`, and how it ended where it was not done.
    #[must_use]
    pub fn words(&self) -> String {
        let Self { resource, name, outcome } = self;
        match outcome {
            StepOutcome::Done | StepOutcome::Unchanged => format!("{resource} {name}"),
            StepOutcome::Skipped(why) | StepOutcome::Degraded(why) | StepOutcome::Failed(why) => {
                format!("{resource} {name}: {why}")
            }
        }
    }

    /// Something that could not be done for all of it, and keeps nobody from going on.
    pub(crate) fn degraded(resource: &'static str, name: &str, why: String) -> Self {
        Self { resource, name: name.to_owned(), outcome: StepOutcome::Degraded(why) }
    }
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerReport {
    /// Which.
    pub layer: Layer,
    /// What was done; nothing when it was as asked.
    pub steps: Vec<StepReport>,
    /// What its gate answered; none on the way down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// How long it took.
    pub seconds: f64,
}

impl LayerReport {
    /// Steps that changed something.
    #[must_use]
    pub fn changed(&self) -> usize {
        self.steps.iter().filter(|step| step.outcome == StepOutcome::Done).count()
    }
}

/// How a walk up ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Every layer is proven.
    Ready,
    /// Nodes have failed; the rest of the fleet stands.
    Partial,
    /// A gate did not open in time.
    TimedOut,
    /// Somebody asked us to stop.
    Interrupted,
    /// A step failed.
    Failed,
}

impl Outcome {
    /// How the program ends.
    #[must_use]
    pub const fn exit_code(self) -> ExitCode {
        match self {
            Self::Ready => ExitCode::Success,
            Self::Partial => ExitCode::NodesFailed,
            Self::TimedOut => ExitCode::GateTimedOut,
            Self::Interrupted => ExitCode::Interrupted,
            Self::Failed => ExitCode::Error,
        }
    }
}

/// Nodes of a whole fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Ready, with their GPUs proven.
    pub ready: u32,
    /// With a reason.
    pub failed: u32,
    /// Neither yet.
    pub joining: u32,
}

/// A walk up.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpReport {
    /// Name of the fleet.
    pub fleet: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Layer by layer, bottom up, as far as it came.
    pub layers: Vec<LayerReport>,
    /// Steps that changed something.
    pub changed: usize,
    /// All nodes.
    pub nodes: Counts,
    /// Pool by pool.
    pub pools: Vec<PoolTally>,
    /// Instances by the reason that keeps them out.
    pub reasons: BTreeMap<String, Vec<String>>,
    /// Nodes that were replaced, and where what was known of them is kept.
    pub replaced: Vec<Replacement>,
    /// How long it took.
    pub seconds: f64,
}

impl UpReport {
    /// Adds up the layers.
    #[must_use]
    pub fn of(fleet: &str, outcome: Outcome, layers: Vec<LayerReport>, seconds: f64) -> Self {
        let mut report = Self {
            fleet: fleet.to_owned(),
            outcome,
            changed: layers.iter().map(LayerReport::changed).sum(),
            nodes: Counts::default(),
            pools: Vec::new(),
            reasons: BTreeMap::new(),
            replaced: Vec::new(),
            layers,
            seconds,
        };
        for gate in report.layers.iter().filter_map(|layer| layer.gate.as_ref()) {
            for (reason, instances) in &gate.nodes().reasons {
                report.reasons.entry(reason.clone()).or_default().extend(instances.clone());
            }
            report.replaced.extend(gate.nodes().replaced.iter().cloned());
            for pool in &gate.nodes().pools {
                report.nodes.ready += pool.ready;
                report.nodes.failed += pool.failed;
                report.nodes.joining += pool.joining;
                report.pools.push(pool.clone());
            }
        }
        report
    }
}

/// Something that is still owned after a walk down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// What kind of thing.
    pub kind: String,
    /// Its name or id.
    pub id: String,
}

/// A walk down.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DownReport {
    /// Name of the fleet; none when there was none.
    pub fleet: Option<String>,
    /// What workloads held of the account, given back: load balancers, volumes, logs.
    pub workloads: Vec<StepReport>,
    /// Layer by layer, top down.
    pub layers: Vec<LayerReport>,
    /// Resources that were removed.
    pub deleted: usize,
    /// Resources that are still owned, counted anew.
    pub leftovers: usize,
    /// Which.
    pub left: Vec<Left>,
    /// What holds them, where that could be read.
    pub blocks: Vec<Block>,
    /// How long it took.
    pub seconds: f64,
}
