//! Proves the add-ons: all ACTIVE, before any node.

use std::time::Duration;

use crate::aws::poll::{Waited, until};
use crate::layers::addons::desired::BEFORE_NODES;
use crate::layers::addons::observe::{self, AddonsFacts};
use crate::stack::{Gate, Inputs, StackError, World};

const DEADLINE: Duration = Duration::from_secs(300);

/// Waits until all are ACTIVE.
pub async fn wait(
    world: &World,
    inputs: &Inputs,
    facts: &mut AddonsFacts,
) -> Result<Gate, StackError> {
    let mut missing = Vec::new();
    let look = async || {
        let now = observe::observe(world, Some(inputs)).await?;
        missing = verdict(&now);
        *facts = now;
        Ok(missing.is_empty().then_some(()))
    };
    match until(world.pace, DEADLINE, &world.interrupt, look).await? {
        Waited::Came(()) => Ok(Gate::open(format!("{} ACTIVE", BEFORE_NODES.join(", ")))),
        Waited::TooLong => Ok(Gate::timed_out(missing.join("; "))),
    }
}

/// What is not proven yet. A DEGRADED add-on may be so for one node that is sick, and must not keep
/// out that node's own replacement. Pure.
#[must_use]
pub fn verdict(facts: &AddonsFacts) -> Vec<String> {
    let mut missing: Vec<String> = BEFORE_NODES
        .iter()
        .filter_map(|name| match facts.addons.get(*name) {
            None => Some(format!("there is no add-on `{name}`")),
            Some(fact) if matches!(fact.status.as_str(), "ACTIVE" | "DEGRADED") => None,
            Some(fact) => {
                Some(format!("the add-on `{name}` is {} {}", fact.status, fact.issues.join(", ")))
            }
        })
        .collect();
    missing.extend(facts.objects_missing.iter().map(|name| format!("{name} is not as asked")));
    missing
}
