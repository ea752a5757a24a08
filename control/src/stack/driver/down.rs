//! The walk down: the layers backwards, what workloads hold of the account in between, the parameters
//! at the end; then a count of what is still owned.

use std::time::{Duration, Instant};

use crate::aws::poll::until;
use crate::layers::blocks::{self, Block};
use crate::layers::{claims, reports};
use crate::output::progress::Mark;
use crate::stack::driver::{PlannedLayer, Walk, row, run_steps};
use crate::stack::report::{DownReport, LayerReport, Left, StepReport};
use crate::stack::{Layer, StackError, Storey, World};

/// Reads lag behind writes by seconds.
const READS_LAG: Duration = Duration::from_secs(15);

/// Takes the layers away, top down, then counts what is still owned.
pub async fn down(world: &World) -> Walk<DownReport> {
    let began = Instant::now();
    let (mut layers, mut workloads) = (Vec::new(), Vec::new());
    let mut stopped = descend(world, &mut layers, &mut workloads).await.err();
    let mut left = Vec::new();
    match settled_leftovers(world, stopped.is_none()).await {
        Ok(found) => left = found,
        Err(error) => {
            stopped.get_or_insert(error);
        }
    }
    // What could not be read is no reason to hide what was done.
    let blocks = match left.is_empty() {
        true => Vec::new(),
        false => held(world).await.unwrap_or_default(),
    };
    // The lease is the last to go: until then nobody builds what we count.
    match stopped {
        None => stopped = world.lease.remove().await.err(),
        Some(_) => world.lease.release().await,
    }
    let changed = |steps: &[StepReport]| {
        steps.iter().filter(|step| step.outcome == contract::StepOutcome::Done).count()
    };
    let report = DownReport {
        fleet: Some(world.scope.fleet.clone()),
        deleted: layers.iter().map(LayerReport::changed).sum::<usize>() + changed(&workloads),
        leftovers: left.len(),
        left,
        blocks,
        workloads,
        layers,
        seconds: began.elapsed().as_secs_f64(),
    };
    Walk { report, stopped }
}

async fn descend(
    world: &World,
    layers: &mut Vec<LayerReport>,
    workloads: &mut Vec<StepReport>,
) -> Result<(), StackError> {
    // While a controller is there that clears up behind them.
    workloads.extend(part(world, claims::release(world)).await?);
    for layer in Layer::ALL.into_iter().rev() {
        // The roles go after the cluster, and tell until then whose its tags were.
        if layer == Layer::Identity {
            workloads.extend(part(world, claims::remove(world)).await?);
        }
        let (report, error) = for_layer!(layer, S => raze::<S>(world).await);
        layers.push(report);
        error.map_or(Ok(()), Err)?;
    }
    reports::delete(world).await
}

/// A part of the walk that is no layer; said only where there was something to do.
async fn part(
    world: &World,
    work: impl Future<Output = Result<Vec<StepReport>, StackError>>,
) -> Result<Vec<StepReport>, StackError> {
    world.progress.begin("workloads");
    let ended = work.await;
    match &ended {
        Ok(steps) if steps.is_empty() => world.progress.pass(),
        Ok(steps) => {
            let fair = steps.iter().any(|s| s.outcome != contract::StepOutcome::Done);
            let words: Vec<_> = steps.iter().map(StepReport::words).collect();
            world.progress.end(if fair { Mark::Fair } else { Mark::Good }, &words.join(", "));
        }
        Err(error) => world.progress.end(Mark::Bad, &contract::ErrorChain(error).to_string()),
    }
    ended
}

async fn raze<S: Storey>(world: &World) -> (LayerReport, Option<StackError>) {
    let began = Instant::now();
    world.progress.begin(S::LAYER.label());
    let mut steps = Vec::new();
    let ended = async {
        let mut facts = S::observe(world, None).await?;
        let mut teardown = S::teardown(&world.scope, &facts);
        if !teardown.is_empty() && world.lease.prove().await? {
            facts = S::observe(world, None).await?;
            teardown = S::teardown(&world.scope, &facts);
        }
        run_steps::<S>(world, teardown, &mut facts, &mut steps).await
    }
    .await;
    let report =
        LayerReport { layer: S::LAYER, steps, gate: None, seconds: began.elapsed().as_secs_f64() };
    let (mark, text) = match &ended {
        Ok(()) if report.steps.is_empty() => (Mark::Good, "nothing was there".to_owned()),
        Ok(()) => (Mark::Good, format!("{} removed", report.changed())),
        Err(StackError::Interrupted) => (Mark::Fair, "interrupted".to_owned()),
        Err(_) => (Mark::Bad, format!("{} removed, then failed", report.changed())),
    };
    world.progress.end(mark, &text);
    (report, ended.err())
}

/// What a walk down would remove, and what holds what.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    /// What workloads hold of the account.
    pub workloads: Vec<super::PlannedStep>,
    /// Layer by layer, top down.
    pub layers: Vec<PlannedLayer>,
    /// The parameters that nodes and `control` wrote.
    pub parameters: Vec<String>,
    /// What holds what.
    pub blocks: Vec<Block>,
    /// What these credentials may not look at.
    pub unknown: Vec<String>,
}

impl Removal {
    /// How many things would be removed.
    #[must_use]
    pub fn count(&self) -> usize {
        let layers: usize = self.layers.iter().map(|layer| layer.steps.len()).sum();
        self.workloads.len() + layers + self.parameters.len()
    }
}

/// What `down` would do now. Reads only.
///
/// # Errors
/// Those of the reads.
pub async fn look(world: &World) -> Result<Removal, StackError> {
    let mut workloads: Vec<_> = Vec::new();
    let mut unknown = Vec::new();
    match claims::in_cluster(world).await {
        Ok(found) => {
            workloads.extend(found.iter().flat_map(claims::releases).map(row));
        }
        Err(StackError::Kubernetes { attempted, source, .. }) => {
            unknown.push(format!("{attempted}: {}", contract::ErrorChain(source.as_ref())));
        }
        Err(error) => return Err(error),
    }
    let held_by_tag = claims::in_account(world).await?;
    workloads.extend(claims::removals(&held_by_tag).into_iter().map(row));
    unknown.extend(held_by_tag.unknown);
    Ok(Removal {
        workloads,
        layers: owned(world).await?,
        parameters: reports::list(world).await?,
        blocks: held(world).await?,
        unknown,
    })
}

async fn held(world: &World) -> Result<Vec<Block>, StackError> {
    Ok(blocks::blocks(&world.scope.fleet, &blocks::observe(world).await?))
}

/// What the layers own, top down.
async fn owned(world: &World) -> Result<Vec<PlannedLayer>, StackError> {
    let mut layers = Vec::new();
    for layer in Layer::ALL.into_iter().rev() {
        let steps = for_layer!(layer, S => {
            let facts = S::observe(world, None).await?;
            S::teardown(&world.scope, &facts).into_iter().map(row).collect()
        });
        layers.push(PlannedLayer { layer, steps });
    }
    Ok(layers)
}

/// What is still owned. After a walk that came to its end, what is found is looked for again for a
/// while: reads lag behind deletions.
async fn settled_leftovers(world: &World, ended: bool) -> Result<Vec<Left>, StackError> {
    let mut left = leftovers(world).await?;
    if ended && !left.is_empty() {
        let look = async || {
            left = leftovers(world).await?;
            Ok(left.is_empty().then_some(()))
        };
        until(world.pace, READS_LAG, &world.interrupt, look).await?;
    }
    Ok(left)
}

/// What is still owned, looked up anew: whatever a walk down would still remove.
///
/// # Errors
/// Those of the reads.
pub async fn leftovers(world: &World) -> Result<Vec<Left>, StackError> {
    let layers = owned(world).await?.into_iter().rev().flat_map(|layer| layer.steps);
    let mut left: Vec<Left> =
        layers.map(|step| Left { kind: step.resource.to_owned(), id: step.name }).collect();
    let workloads = claims::removals(&claims::in_account(world).await?);
    left.extend(workloads.into_iter().map(|s| Left { kind: s.resource.to_owned(), id: s.name }));
    let parameters = reports::list(world).await?;
    left.extend(parameters.into_iter().map(|id| Left { kind: "parameter".to_owned(), id }));
    Ok(left)
}
