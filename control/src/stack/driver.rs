//! Walks the layers: up (observe → plan → apply → gate) and plan alone; [`down`] walks them backwards.

use std::time::Instant;

use contract::StepOutcome;
use serde::Serialize;

use crate::aws::poll::side_by_side;
use crate::layers::pools::desired::template_name;
use crate::output::progress::Mark;
use crate::stack::report::{LayerReport, Outcome, StepReport, UpReport};
use crate::stack::{Action, Applied, Gate, Inputs, Layer, StackError, Step, Storey, World};

/// Runs the body for the storey of a layer: the one place where both meet.
macro_rules! for_layer {
    ($layer:expr, $storey:ident => $body:expr) => {
        match $layer {
            Layer::Network => {
                type $storey = $crate::layers::network::Network;
                $body
            }
            Layer::Identity => {
                type $storey = $crate::layers::identity::Identity;
                $body
            }
            Layer::Cluster => {
                type $storey = $crate::layers::cluster::ControlPlane;
                $body
            }
            Layer::Addons => {
                type $storey = $crate::layers::addons::Addons;
                $body
            }
            Layer::System => {
                type $storey = $crate::layers::system::System;
                $body
            }
            Layer::Gpu => {
                type $storey = $crate::layers::gpu::Gpu;
                $body
            }
        }
    };
}

// Below the macro that it uses.
pub mod down;

/// What a walk did before it ended, and why it ended early.
#[derive(Debug)]
pub struct Walk<R> {
    /// What was done.
    pub report: R,
    /// Why it ended early; none when it did not.
    pub stopped: Option<StackError>,
}

/// One row of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedStep {
    /// What is done.
    pub action: Action,
    /// To what kind of thing.
    pub resource: &'static str,
    /// Its name.
    pub name: String,
    /// Why.
    pub why: String,
}

/// A layer of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedLayer {
    /// Which.
    pub layer: Layer,
    /// Its steps.
    pub steps: Vec<PlannedStep>,
}

/// What `up` would do now.
///
/// # Errors
/// Those of the reads, or [`StackError::Conflict`].
pub async fn plan(world: &World, mut inputs: Inputs) -> Result<Vec<PlannedLayer>, StackError> {
    let mut layers = Vec::new();
    for layer in Layer::ALL {
        let steps = for_layer!(layer, S => plan_layer::<S>(world, &mut inputs).await?);
        layers.push(PlannedLayer { layer, steps });
    }
    Ok(layers)
}

async fn plan_layer<S: Storey>(
    world: &World,
    inputs: &mut Inputs,
) -> Result<Vec<PlannedStep>, StackError> {
    let facts = S::observe(world, Some(inputs)).await?;
    let steps = S::plan(inputs, &facts)?;
    let mut given = inputs.given.clone();
    S::give(inputs, &facts, &mut given);
    inputs.given = given;
    Ok(steps.into_iter().map(row).collect())
}

/// A step as it is shown.
fn row<Op>(step: Step<Op>) -> PlannedStep {
    let Step { action, resource, name, why, .. } = step;
    PlannedStep { action, resource, name, why }
}

/// One pool of a running fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnePool {
    /// Its name.
    pub name: String,
    /// The layer that builds it.
    pub layer: Layer,
}

impl OnePool {
    /// Leaves the pool alone in what is asked: its layer's gate is about its nodes.
    fn narrow(&self, mut inputs: Inputs) -> Inputs {
        inputs.spec.pools.retain(|pool| pool.name == self.name);
        inputs
    }

    /// Whether a step is about the pool, or adds what its nodes need beside it.
    fn is_about<Op>(&self, fleet: &str, step: &Step<Op>) -> bool {
        let own = step.name == self.name || step.name == template_name(fleet, &self.name);
        let of_pools =
            ["launch template", "node group", "node group size", "nodes", "placement group"];
        own || (!of_pools.contains(&step.resource) && step.action == Action::Add)
    }
}

/// What would bring one pool to what is asked of it.
///
/// # Errors
/// Those of the reads, or [`StackError::Missing`] when the fleet does not stand.
pub async fn plan_pool(
    world: &World,
    inputs: Inputs,
    pool: &OnePool,
) -> Result<Vec<PlannedStep>, StackError> {
    let inputs = foundation(world, inputs, pool).await?;
    let steps = for_layer!(pool.layer, S => {
        let facts = S::observe(world, Some(&inputs)).await?;
        let steps = S::plan(&inputs, &facts)?.into_iter();
        steps.filter(|step| pool.is_about(&world.scope.fleet, step)).map(row).collect()
    });
    Ok(steps)
}

/// The inputs with what the layers below give, as far as they are built.
///
/// # Errors
/// Those of the reads, or [`StackError::Conflict`].
pub async fn given(world: &World, mut inputs: Inputs, layer: Layer) -> Result<Inputs, StackError> {
    for below in Layer::ALL.into_iter().filter(|below| *below < layer) {
        for_layer!(below, S => { plan_layer::<S>(world, &mut inputs).await?; });
    }
    Ok(inputs)
}

/// What one pool is built on: the layers below, as they are.
async fn foundation(world: &World, inputs: Inputs, pool: &OnePool) -> Result<Inputs, StackError> {
    let layer = pool.layer;
    let inputs = given(world, pool.narrow(inputs), layer).await?;
    match inputs.given.cluster {
        Some(_) => Ok(inputs),
        None => Err(StackError::Missing { layer, missing: "a running cluster" }),
    }
}

/// Brings one pool to what is asked of it, and touches nothing else.
pub async fn up_pool(world: &World, inputs: Inputs, pool: &OnePool) -> Walk<UpReport> {
    let began = Instant::now();
    let (layers, stopped) = match foundation(world, inputs, pool).await {
        Ok(mut inputs) => {
            let only = Some(pool);
            let (report, error) =
                for_layer!(pool.layer, S => raise::<S>(world, &mut inputs, only).await);
            (vec![report], error)
        }
        Err(error) => (Vec::new(), Some(error)),
    };
    let gate = layers.first().and_then(|layer: &LayerReport| layer.gate.as_ref());
    let outcome = outcome_of(stopped.as_ref(), gate);
    world.lease.release().await;
    let seconds = began.elapsed().as_secs_f64();
    Walk { report: UpReport::of(&world.scope.fleet, outcome, layers, seconds), stopped }
}

/// How a walk stands after a layer.
fn outcome_of(error: Option<&StackError>, gate: Option<&Gate>) -> Outcome {
    match (error, gate) {
        (Some(StackError::Interrupted), _) => Outcome::Interrupted,
        (Some(_), _) => Outcome::Failed,
        (None, Some(Gate::NodesFailed { .. })) => Outcome::Partial,
        (None, Some(Gate::TimedOut { .. })) => Outcome::TimedOut,
        (None, Some(Gate::Degraded { nodes, .. })) if !nodes.reasons.is_empty() => Outcome::Partial,
        (None, _) => Outcome::Ready,
    }
}

/// Which layers a walk up builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All up to this one.
    Through(Layer),
    /// This one, on those below as they are.
    Only(Layer),
}

impl Reach {
    /// Whether a walk builds the layer; none when it does not come by it at all.
    const fn builds(self, layer: Layer) -> Option<bool> {
        match self {
            Self::Through(top) if layer as u8 <= top as u8 => Some(true),
            Self::Only(only) if layer as u8 == only as u8 => Some(true),
            Self::Only(only) if (layer as u8) < only as u8 => Some(false),
            Self::Through(_) | Self::Only(_) => None,
        }
    }
}

/// Builds the layers that are within reach, each on the proof of the one below.
pub async fn up(world: &World, mut inputs: Inputs, reach: Reach) -> Walk<UpReport> {
    let began = Instant::now();
    let mut layers = Vec::new();
    let mut outcome = Outcome::Ready;
    let mut stopped = None;
    for layer in Layer::ALL {
        let Some(builds) = reach.builds(layer) else { continue };
        if !builds {
            // What it gives is taken as it is; whether that is enough, the layer above finds.
            if let Err(error) = for_layer!(layer, S => plan_layer::<S>(world, &mut inputs).await) {
                (outcome, stopped) = (Outcome::Failed, Some(error));
                break;
            }
            continue;
        }
        let (report, error) = for_layer!(layer, S => raise::<S>(world, &mut inputs, None).await);
        let goes_on = error.is_none() && report.gate.as_ref().is_some_and(Gate::is_open);
        // A quorum that holds lets the walk go on, and what failed is told at its end.
        outcome = match outcome_of(error.as_ref(), report.gate.as_ref()) {
            Outcome::Ready => outcome,
            other => other,
        };
        layers.push(report);
        stopped = error;
        if !goes_on {
            break;
        }
    }
    world.lease.release().await;
    let seconds = began.elapsed().as_secs_f64();
    Walk { report: UpReport::of(&world.scope.fleet, outcome, layers, seconds), stopped }
}

async fn raise<S: Storey>(
    world: &World,
    inputs: &mut Inputs,
    only: Option<&OnePool>,
) -> (LayerReport, Option<StackError>) {
    let began = Instant::now();
    world.progress.begin(S::LAYER.label());
    let mut report = LayerReport { layer: S::LAYER, steps: Vec::new(), gate: None, seconds: 0.0 };
    let ended = build::<S>(world, inputs, only, &mut report).await;
    report.seconds = began.elapsed().as_secs_f64();
    let (mark, text) = match (&ended, &report.gate) {
        (Err(StackError::Interrupted), _) => (Mark::Fair, "interrupted".to_owned()),
        (Err(_), _) => (Mark::Bad, format!("{}, then failed", changes(&report))),
        (Ok(()), Some(gate)) => {
            let mark = match gate {
                Gate::Open { .. } => Mark::Good,
                Gate::Degraded { .. } => Mark::Fair,
                Gate::NodesFailed { .. } | Gate::TimedOut { .. } => Mark::Bad,
            };
            (mark, format!("{} · {}", changes(&report), gate.detail()))
        }
        (Ok(()), None) => (Mark::Good, changes(&report)),
    };
    world.progress.end(mark, &text);
    (report, ended.err())
}

fn changes(report: &LayerReport) -> String {
    match report.changed() {
        0 => "Unchanged".to_owned(),
        1 => "1 change".to_owned(),
        many => format!("{many} changes"),
    }
}

async fn build<S: Storey>(
    world: &World,
    inputs: &mut Inputs,
    only: Option<&OnePool>,
    report: &mut LayerReport,
) -> Result<(), StackError> {
    let plan = |inputs: &Inputs, facts: &S::Facts| -> Result<Vec<Step<S::Op>>, StackError> {
        let mut steps = S::plan(inputs, facts)?;
        steps.retain(|step| only.is_none_or(|pool| pool.is_about(&world.scope.fleet, step)));
        Ok(steps)
    };
    let mut facts = S::observe(world, Some(inputs)).await?;
    let mut steps = plan(inputs, &facts)?;
    // Taken just now: another may have been at work until then.
    if !steps.is_empty() && world.lease.prove().await? {
        facts = S::observe(world, Some(inputs)).await?;
        steps = plan(inputs, &facts)?;
    }
    run_steps::<S>(world, steps, &mut facts, &mut report.steps).await?;
    world.progress.gate(S::LAYER.proves());
    report.gate = Some(S::gate(world, inputs, &mut facts).await?);
    let mut given = inputs.given.clone();
    S::give(inputs, &facts, &mut given);
    inputs.given = given;
    Ok(())
}

/// Runs a layer's steps, stage by stage. The steps of one stage run side by side; when one of them
/// fails the others of its stage still end, so that everything that was made is known.
async fn run_steps<S: Storey>(
    world: &World,
    mut steps: Vec<Step<S::Op>>,
    facts: &mut S::Facts,
    reports: &mut Vec<StepReport>,
) -> Result<(), StackError> {
    world.progress.steps(steps.len());
    steps.sort_by_key(|step| step.stage);
    for stage in steps.chunk_by(|a, b| a.stage == b.stage) {
        if world.interrupt.is_raised() {
            return Err(StackError::Interrupted);
        }
        world.lease.prove().await?;
        let seen: &S::Facts = facts;
        let running = stage.iter().map(async |step| {
            let ended = S::apply(world, &step.op, seen).await;
            world.progress.step(step.resource, &step.name, ended.is_ok());
            ended
        });
        let ended = tokio::select! {
            ended = side_by_side(running) => ended,
            // What is in flight is left where it is: whoever has the lease now finds it.
            lost = world.lease.lost() => return Err(lost),
        };
        let mut failed = None;
        for (step, ended) in stage.iter().zip(ended) {
            match ended {
                Ok(Applied { outcome, learn }) => {
                    reports.push(StepReport::of(step, outcome));
                    learn(facts);
                }
                Err(error) => {
                    let left = contract::ErrorChain(&error).to_string();
                    reports.push(StepReport::of(step, StepOutcome::Failed(left)));
                    failed.get_or_insert(error);
                }
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_reaches_what_it_is_asked_for() {
        let built = |reach: Reach| Layer::ALL.map(|layer| reach.builds(layer));
        let (yes, seen, no) = (Some(true), Some(false), None);
        assert_eq!(built(Reach::Through(Layer::Identity)), [yes, yes, no, no, no, no]);
        assert_eq!(built(Reach::Only(Layer::Cluster)), [seen, seen, yes, no, no, no]);
        assert_eq!(built(Reach::Through(Layer::Gpu)), [yes; 6]);
    }
}
