//! Placement groups of the fleet's own: nodes that stand close together. Apart from EFA: a group
//! makes launches fail that would succeed anywhere else in the zone, so that nobody gets one unasked.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{PlacementStrategy, ResourceType};
use contract::StepOutcome;
use contract::names::{TAG_FLEET, TAG_LAYER};

use crate::aws::ec2::{filter, tag_of, tagged};
use crate::aws::error::gone;
use crate::aws::poll::patiently;
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::stack::{Layer, StackError, World};

/// The names of the groups that a layer of the fleet made.
///
/// # Errors
/// [`AwsError`] when EC2 does not answer or refuses.
pub async fn list(clients: &Clients, fleet: &str, layer: Layer) -> Result<Vec<String>, AwsError> {
    let call = clients.ec2.describe_placement_groups();
    let call = call.filters(filter(&format!("tag:{TAG_FLEET}"), fleet));
    let call = call.filters(filter(&format!("tag:{TAG_LAYER}"), layer.label()));
    let answer =
        call.send().await.attempted(|| format!("list the placement groups of `{fleet}`"))?;
    let living = answer.placement_groups().iter().filter(|group| {
        group.state().is_none_or(|state| !matches!(state.as_str(), "deleting" | "deleted"))
    });
    let mut names: Vec<String> =
        living.filter_map(|group| group.group_name().map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}

/// Makes a group whose members share a high-bandwidth segment of the network.
///
/// # Errors
/// EC2's refusal; [`StackError::Conflict`] when the name is somebody else's.
pub async fn create(
    world: &World,
    name: &str,
    tags: &BTreeMap<String, String>,
) -> Result<StepOutcome, StackError> {
    let call = world.clients.ec2.create_placement_group().group_name(name);
    let call = call.strategy(PlacementStrategy::Cluster);
    let call = call.tag_specifications(tagged(ResourceType::PlacementGroup, tags));
    match call.send().await.attempted(|| format!("create the placement group `{name}`")) {
        Ok(_) => Ok(StepOutcome::Done),
        // Our own call whose answer was lost, or somebody else's group.
        Err(error) if error.code() == Some("InvalidPlacementGroup.Duplicate") => {
            match is_ours(world, name).await? {
                true => Ok(StepOutcome::Unchanged),
                false => Err(StackError::Conflict {
                    message: format!("the placement group `{name}` exists and is not the fleet's"),
                    hint: "use it with `placementGroup`, or rename the pool".into(),
                }),
            }
        }
        Err(error) => Err(error.into()),
    }
}

async fn is_ours(world: &World, name: &str) -> Result<bool, AwsError> {
    let call = world.clients.ec2.describe_placement_groups().group_names(name).send().await;
    let answer = call.attempted(|| format!("describe the placement group `{name}`"))?;
    let fleet = world.scope.fleet.as_str();
    Ok(answer.placement_groups().iter().any(|group| tag_of(group.tags(), TAG_FLEET) == Some(fleet)))
}

/// Removes a group, waiting for instances that are on their way out.
///
/// # Errors
/// EC2's refusal.
pub async fn delete(world: &World, name: &str) -> Result<StepOutcome, StackError> {
    patiently(world.pace, &world.interrupt, async || remove(world, name).await).await
}

/// Removes a group if nothing is in it: nodes that are still being replaced keep it for now.
///
/// # Errors
/// EC2's refusal.
pub async fn retire(world: &World, name: &str) -> Result<StepOutcome, StackError> {
    match remove(world, name).await {
        Err(error) if error.code() == Some("InvalidPlacementGroup.InUse") => {
            let why = "nodes that are being replaced are still in it; the next `up` removes it";
            Ok(StepOutcome::Skipped(why.into()))
        }
        ended => Ok(ended?),
    }
}

async fn remove(world: &World, name: &str) -> Result<StepOutcome, AwsError> {
    let call = world.clients.ec2.delete_placement_group().group_name(name).send().await;
    match gone(call.attempted(|| format!("delete the placement group `{name}`"))) {
        Err(error) if error.code() == Some("InvalidPlacementGroup.Unknown") => {
            Ok(StepOutcome::Unchanged)
        }
        ended => ended,
    }
}
