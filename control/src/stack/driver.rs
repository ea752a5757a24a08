//! Walks the layers: up (observe → plan → apply → gate) and plan alone; [`down`] walks them backwards.

use std::time::Instant;

use contract::StepOutcome;
use serde::Serialize;

use crate::aws::poll::side_by_side;
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
        let (report, error) = for_layer!(layer, S => raise::<S>(world, &mut inputs).await);
        let gate = report.gate.clone();
        layers.push(report);
        if let Some(error) = error {
            outcome = match error {
                StackError::Interrupted => Outcome::Interrupted,
                _ => Outcome::Failed,
            };
            stopped = Some(error);
            break;
        }
        match gate {
            Some(Gate::NodesFailed { .. }) => outcome = Outcome::Partial,
            Some(Gate::TimedOut { .. }) => outcome = Outcome::TimedOut,
            Some(Gate::Degraded { ref nodes, .. }) if !nodes.reasons.is_empty() => {
                outcome = Outcome::Partial;
                continue;
            }
            _ => continue,
        }
        break;
    }
    world.lease.release().await;
    let seconds = began.elapsed().as_secs_f64();
    Walk { report: UpReport::of(&world.scope.fleet, outcome, layers, seconds), stopped }
}

async fn raise<S: Storey>(world: &World, inputs: &mut Inputs) -> (LayerReport, Option<StackError>) {
    let began = Instant::now();
    world.progress.begin(S::LAYER.label());
    let mut report = LayerReport { layer: S::LAYER, steps: Vec::new(), gate: None, seconds: 0.0 };
    let ended = build::<S>(world, inputs, &mut report).await;
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
    report: &mut LayerReport,
) -> Result<(), StackError> {
    let mut facts = S::observe(world, Some(inputs)).await?;
    let mut steps = S::plan(inputs, &facts)?;
    // Taken just now: another may have been at work until then.
    if !steps.is_empty() && world.lease.prove().await? {
        facts = S::observe(world, Some(inputs)).await?;
        steps = S::plan(inputs, &facts)?;
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
            world.progress.step(step.resource, &step.name);
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
