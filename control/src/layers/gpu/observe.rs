//! The gpu layer as it is.

use crate::layers::addons::observe::{connect, label, missing};
use crate::layers::gpu::desired::objects;
use crate::layers::pools::observe::{self as pools, PoolsFacts};
use crate::stack::{Inputs, Layer, StackError, World};

/// The gpu layer as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuFacts {
    /// Its pools.
    pub pools: PoolsFacts,
    /// Names of the objects that are not in the cluster as asked.
    pub objects_missing: Vec<String>,
}

/// Reads what is there.
///
/// # Errors
/// Those of the reads.
pub async fn observe(world: &World, inputs: Option<&Inputs>) -> Result<GpuFacts, StackError> {
    let pools = pools::observe(world, Layer::Gpu, inputs).await?;
    let objects = inputs.map(objects).unwrap_or_default();
    let cluster = match inputs {
        Some(inputs) if !objects.is_empty() => connect(world, inputs).await?,
        _ => None,
    };
    let objects_missing = match cluster {
        Some(cluster) => missing(&cluster, &objects).await?,
        None => objects.iter().map(label).collect(),
    };
    Ok(GpuFacts { pools, objects_missing })
}
