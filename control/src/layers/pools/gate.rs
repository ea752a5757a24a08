//! Proves a layer's pools: every node Ready with its GPUs proven, or a named reason.
//!
//! Never waits for EKS's own verdict on a new group, which takes 25 minutes: ours comes first.

use std::time::Duration;

use contract::{Finding, Reason};

use crate::aws::poll::{Waited, until};
use crate::diagnose::{NodeState, NodeVerdict, node_verdicts};
use crate::kube::Cluster;
use crate::launch::managed::{self, GroupFact};
use crate::layers::addons::observe::connect;
use crate::layers::pools::breaker::Breakers;
use crate::layers::pools::replace::{self, Replacement};
use crate::output::progress::{Mark, NodeLine};
use crate::stack::report::{NodeTally, PoolTally};
use crate::stack::{Gate, Inputs, Layer, StackError, World};

/// Ten minutes to registration, five to ready, three for EKS and EC2 to start anything at all.
const DEADLINE: Duration = Duration::from_secs(18 * 60);

/// Waits until every node of the layer has its verdict.
///
/// # Errors
/// Those of the reads.
pub async fn wait(world: &World, inputs: &Inputs, layer: Layer) -> Result<Gate, StackError> {
    let cluster = connect(world, inputs).await?;
    let mut breakers = Breakers::default();
    let mut replaced: Vec<Replacement> = Vec::new();
    loop {
        let (mut tally, mut settled) = (NodeTally::default(), Vec::new());
        let look = async || {
            let (mut nodes, groups) = see(world, inputs, layer, cluster.as_ref()).await?;
            // One that was replaced may be listed for a moment yet.
            nodes.retain(|node| !replaced.iter().any(|one| one.instance == node.instance));
            world.progress.nodes(&nodes.iter().map(line).collect::<Vec<_>>());
            tally = count(inputs, layer, &nodes, &groups);
            breakers.keep(world, &nodes).await?;
            settled = nodes;
            Ok(is_settled(&tally).then_some(()))
        };
        let waited = until(world.pace, DEADLINE, &world.interrupt, look).await?;
        let failed = match waited {
            Waited::Came(()) => replace::chosen(inputs, layer, &settled, &replaced),
            Waited::TooLong => Vec::new(),
        };
        if failed.is_empty() {
            tally.replaced = replaced;
            return Ok(match waited {
                Waited::Came(()) => verdict(tally),
                Waited::TooLong => Gate::TimedOut { detail: words(&tally), nodes: tally },
            });
        }
        let mut news = Vec::new();
        for node in failed {
            news.push(replace::replace(world, cluster.as_ref(), node).await?);
        }
        replaced.extend(news);
    }
}

/// Waits until the layer has a Ready node, or none can come any more: which one did not, and why, is
/// the gate's to say.
///
/// # Errors
/// Those of the reads.
pub async fn first_node(world: &World, layer: Layer, cluster: &Cluster) -> Result<(), StackError> {
    let fleet = &world.scope.fleet;
    let look = async || {
        let mut nodes = node_verdicts(&world.clients, Some(cluster), fleet).await?;
        nodes.retain(|node| node.layer == layer.label());
        world.progress.nodes(&nodes.iter().map(line).collect::<Vec<_>>());
        if nodes.iter().any(|node| node.state == NodeState::Ready) {
            return Ok(Some(()));
        }
        let groups = match nodes.is_empty() {
            true => managed::list(&world.clients, fleet).await?,
            false => Vec::new(),
        };
        Ok(is_hopeless(layer, &nodes, &groups).then_some(()))
    };
    until(world.pace, DEADLINE, &world.interrupt, look).await.map(drop)
}

/// Whether no node of the layer is on its way any more. Pure.
fn is_hopeless(layer: Layer, nodes: &[NodeVerdict], groups: &[GroupFact]) -> bool {
    let mut ours = groups.iter().filter(|group| group.layer == layer.label()).peekable();
    match nodes.is_empty() {
        true => ours.peek().is_some() && ours.all(|group| group.status == "CREATE_FAILED"),
        false => nodes.iter().all(|node| node.state == NodeState::Failed),
    }
}

async fn see(
    world: &World,
    inputs: &Inputs,
    layer: Layer,
    cluster: Option<&Cluster>,
) -> Result<(Vec<NodeVerdict>, Vec<GroupFact>), StackError> {
    let fleet = &world.scope.fleet;
    let mut nodes = node_verdicts(&world.clients, cluster, fleet).await?;
    nodes.retain(|node| inputs.spec.pools_of(layer).any(|pool| pool.name == node.pool));
    let mut groups = managed::list(&world.clients, fleet).await?;
    groups.retain(|group| group.layer == layer.label());
    Ok((nodes, groups))
}

fn line(node: &NodeVerdict) -> NodeLine {
    let (mark, text) = match node.state {
        NodeState::Ready => (Mark::Good, "Ready".to_owned()),
        NodeState::Joining => (Mark::Waiting, node.progress().to_owned()),
        NodeState::Failed => (Mark::Bad, node.reasons.first().map(cause).unwrap_or_default()),
    };
    let text = match (node.state, node.gpus_expected) {
        (NodeState::Ready, Some(gpus)) if gpus > 0 => {
            format!("{text}, {gpus} {} proven", node.gpus_unit)
        }
        _ => text,
    };
    let word = match node.state {
        NodeState::Failed => node.reasons.first().map(|f| f.reason.to_string()).unwrap_or_default(),
        NodeState::Ready | NodeState::Joining => String::new(),
    };
    NodeLine { at: node.place(), instance: node.instance.clone(), text, word, mark }
}

fn cause(finding: &Finding) -> String {
    format!("{}: {}", finding.reason, finding.summary)
}

/// Counts the nodes. A group that EKS gave up leaves its missing nodes with that reason. Pure.
#[must_use]
pub fn count(
    inputs: &Inputs,
    layer: Layer,
    nodes: &[NodeVerdict],
    groups: &[GroupFact],
) -> NodeTally {
    let mut tally = NodeTally::default();
    for pool in inputs.spec.pools_of(layer) {
        let of_pool: Vec<_> = nodes.iter().filter(|node| node.pool == pool.name).collect();
        let state = |state: NodeState| {
            let found = of_pool.iter().filter(|node| node.state == state).count();
            u32::try_from(found).unwrap_or(u32::MAX)
        };
        let mut row = PoolTally {
            name: pool.name.clone(),
            class: pool.class.label().to_owned(),
            desired: pool.size.desired,
            quorum: pool.quorum,
            ready: state(NodeState::Ready),
            failed: state(NodeState::Failed),
            joining: state(NodeState::Joining),
        };
        for node in of_pool.iter().filter(|node| node.state == NodeState::Failed) {
            let reason = node.reasons.first().map_or("Unknown", |finding| finding.reason.as_str());
            tally.reasons.entry(reason.to_owned()).or_default().push(node.instance.clone());
        }
        let missing = pool.size.desired.saturating_sub(row.ready + row.failed + row.joining);
        let given_up = groups.iter().any(|g| g.name == pool.name && g.status == "CREATE_FAILED");
        if missing > 0 && given_up {
            row.failed += missing;
            let name = Reason::NodeGroupCreateFailed.name().to_owned();
            tally.reasons.entry(name).or_default().push(pool.name.clone());
        } else {
            row.joining += missing;
        }
        tally.pools.push(row);
    }
    tally
}

/// Whether every node has its verdict. A replacement that is still coming keeps the gate waiting. Pure.
#[must_use]
pub fn is_settled(tally: &NodeTally) -> bool {
    tally.pools.iter().all(|pool| pool.joining == 0 && pool.ready + pool.failed >= pool.desired)
}

/// The gate's answer on nodes that all have their verdict. Pure.
#[must_use]
pub fn verdict(tally: NodeTally) -> Gate {
    let detail = words(&tally);
    if tally.pools.iter().all(|pool| pool.failed == 0) {
        Gate::Open { detail, nodes: tally }
    } else if tally.pools.iter().all(|pool| pool.ready >= pool.quorum) {
        Gate::Degraded { detail, nodes: tally }
    } else {
        Gate::NodesFailed { detail, nodes: tally }
    }
}

/// `h100 2 of 4 ready, 2 failed`.
fn words(tally: &NodeTally) -> String {
    let pool = |pool: &PoolTally| {
        let mut text = format!("{} {} of {} ready", pool.name, pool.ready, pool.desired);
        for (count, word) in [(pool.failed, "failed"), (pool.joining, "joining")] {
            if count > 0 {
                text.push_str(&format!(", {count} {word}"));
            }
        }
        text
    };
    match tally.pools.is_empty() {
        true => "no pools".to_owned(),
        false => {
            let pools = tally.pools.iter().map(pool).collect::<Vec<_>>().join("; ");
            match tally.replaced.len() {
                0 => pools,
                many => format!("{pools}; {many} replaced"),
            }
        }
    }
}
