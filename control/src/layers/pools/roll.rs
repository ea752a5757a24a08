//! Replaces a pool's nodes by ones of its template's newest version.
//!
//! EKS does it a few at a time: the new ones first, and old ones go only when the new are Ready, which
//! each node's own gates hold back until its GPUs are proven. So an image that does not work costs the
//! first few. EKS gives such a roll up after a quarter of an hour; we say it with the first new node
//! that has failed.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::StepOutcome;

use crate::aws::eks::cluster_facts;
use crate::aws::poll::{Waited, until};
use crate::diagnose::{NodeState, node_verdicts};
use crate::kube;
use crate::launch::managed;
use crate::stack::{Layer, StackError, World};

/// The longest that EKS may take for each node: fifteen minutes to its own verdict, and a drain.
const PER_NODE: Duration = Duration::from_secs(25 * 60);

/// Where a roll stands.
enum Roll {
    /// Not asked for yet: another update may be under way.
    Wanted,
    /// Asked for, by the update's id.
    Asked(String),
}

/// Rolls a pool and waits until it has new nodes alone, or it is known that it will not.
///
/// # Errors
/// EKS's refusal.
pub async fn roll(
    world: &World,
    layer: Layer,
    pool: &str,
    (template, version): (&str, &str),
    nodes: u32,
) -> Result<StepOutcome, StackError> {
    let (clients, fleet) = (&world.clients, &world.scope.fleet);
    let before = failed(world, pool).await?;
    let mut roll = Roll::Wanted;
    let look = async || {
        match &roll {
            Roll::Wanted => {
                let Some(group) = managed::describe(clients, fleet, pool).await? else {
                    return Err(StackError::Missing { layer, missing: "its node group" });
                };
                let newest =
                    group.template.as_ref().is_some_and(|(t, v)| t == template && v == version);
                match group.status.as_str() {
                    "CREATING" | "UPDATING" => {}
                    _ if newest => return Ok(Some(StepOutcome::Done)),
                    _ => match managed::roll(clients, fleet, pool, (template, version)).await {
                        Ok(update) => {
                            roll = Roll::Asked(update);
                            return Ok(None);
                        }
                        Err(error) if error.code() == Some("ResourceInUseException") => {}
                        Err(error) => return Err(error.into()),
                    },
                }
            }
            Roll::Asked(update) => {
                let (status, words) = managed::update(clients, fleet, pool, update).await?;
                match status.as_str() {
                    "Successful" => return Ok(Some(StepOutcome::Done)),
                    "Failed" | "Cancelled" => {
                        let why = format!("EKS has given the roll up: {words}");
                        return Ok(Some(StepOutcome::Degraded(why)));
                    }
                    _ => {}
                }
            }
        }
        let now = failed(world, pool).await?;
        let fresh = now.iter().find(|(instance, _)| !before.contains_key(*instance));
        Ok(fresh.map(|(instance, cause)| {
            StepOutcome::Degraded(format!("the new node {instance} has failed: {cause}"))
        }))
    };
    match until(world.pace, PER_NODE * nodes.max(1), &world.interrupt, look).await? {
        Waited::Came(outcome) => Ok(outcome),
        Waited::TooLong => Ok(StepOutcome::Degraded("EKS has not ended the roll in time".into())),
    }
}

/// The pool's nodes that have failed, by instance, with their first cause.
async fn failed(world: &World, pool: &str) -> Result<BTreeMap<String, String>, StackError> {
    let (clients, fleet) = (&world.clients, &world.scope.fleet);
    let cluster = match cluster_facts(clients, fleet).await? {
        // Without it the nodes' own reports are heard all the same.
        Some(facts) => kube::connect(&facts, clients.credentials.clone()).await.ok(),
        None => None,
    };
    let nodes = node_verdicts(clients, cluster.as_ref(), fleet).await?;
    let failed =
        nodes.into_iter().filter(|node| node.pool == pool && node.state == NodeState::Failed);
    let cause = |node: &crate::diagnose::NodeVerdict| {
        node.reasons.first().map_or_else(|| "Unknown".into(), |cause| cause.reason.to_string())
    };
    Ok(failed.map(|node| (node.instance.clone(), cause(&node))).collect())
}
