//! The control plane as it is.

use contract::names::TAG_FLEET;

use crate::aws::eks::{ClusterFacts, cluster, facts_of};
use crate::aws::tagging::Tags;
use crate::stack::{StackError, World};

/// The control plane as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlPlaneFacts {
    /// `CREATING`, `ACTIVE`, `DELETING`, `FAILED`, `UPDATING`; none when there is no such cluster.
    pub status: Option<String>,
    /// Whether it carries this fleet's tag.
    pub ours: bool,
    /// Its version.
    pub version: String,
    /// Its ARN.
    pub arn: String,
    /// Its tags.
    pub tags: Tags,
    /// Everything that nodes and clients must agree on; none while it is being made.
    pub cluster: Option<ClusterFacts>,
}

/// Reads what is there.
///
/// # Errors
/// Those of the read.
pub async fn observe(world: &World) -> Result<ControlPlaneFacts, StackError> {
    let fleet = &world.scope.fleet;
    let Some(found) = cluster(&world.clients, fleet).await? else {
        return Ok(ControlPlaneFacts::default());
    };
    Ok(ControlPlaneFacts {
        status: found.status().map(|status| status.as_str().to_owned()),
        ours: found.tags().and_then(|tags| tags.get(TAG_FLEET)) == Some(fleet),
        arn: found.arn().unwrap_or_default().to_owned(),
        tags: found.tags().cloned().unwrap_or_default().into_iter().collect(),
        version: found.version().unwrap_or_default().to_owned(),
        cluster: facts_of(&found, &world.scope.region),
    })
}
