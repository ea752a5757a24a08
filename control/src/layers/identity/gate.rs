//! Proves identity: IAM is eventually consistent, so everything must be visible in three consecutive
//! reads before anything is made that depends on it.

use std::time::Duration;

use crate::aws::poll::{Waited, until};
use crate::layers::identity::desired::{self, Desired};
use crate::layers::identity::{IdentityFacts, observe, plan};
use crate::stack::{Gate, Inputs, StackError, World};

const DEADLINE: Duration = Duration::from_secs(120);
/// Reads in a row that must agree.
const CONSECUTIVE: u32 = 3;

/// Waits until everything is visible, three times running.
pub async fn wait(
    world: &World,
    inputs: &Inputs,
    facts: &mut IdentityFacts,
) -> Result<Gate, StackError> {
    let desired = desired::desired(inputs);
    let (mut agreeing, mut missing) = (0, Vec::new());
    let look = async || {
        let now = observe::observe(world, Some(inputs)).await?;
        missing = verdict(&desired, &now)?;
        agreeing = if missing.is_empty() { agreeing + 1 } else { 0 };
        *facts = now;
        Ok((agreeing == CONSECUTIVE).then_some(()))
    };
    match until(world.pace, DEADLINE, &world.interrupt, look).await? {
        Waited::Came(()) => {
            let roles = desired.roles.len() + desired.existing.len();
            let agent = if desired.bucket.is_some() { " and the agent's tarball" } else { "" };
            let visible = format!("{roles} roles{agent} visible in {CONSECUTIVE} reads running");
            let lacking = plan::lacking(&desired, facts);
            Ok(match lacking.is_empty() {
                true => Gate::open(visible),
                false => Gate::degraded(format!("{visible}; {}", lacking.join("; "))),
            })
        }
        Waited::TooLong => Ok(Gate::timed_out(missing.join("; "))),
    }
}

/// What is not visible yet: whatever a plan would still do. Pure.
///
/// # Errors
/// The plan's.
pub fn verdict(desired: &Desired, facts: &IdentityFacts) -> Result<Vec<String>, StackError> {
    let steps = plan::plan(desired, facts)?;
    Ok(steps.iter().map(|step| format!("{} `{}` {}", step.resource, step.name, step.why)).collect())
}
