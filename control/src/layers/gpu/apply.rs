//! Makes and removes the gpu layer's parts.

use crate::layers::addons::apply::apply_object;
use crate::layers::gpu::GpuFacts;
use crate::layers::gpu::plan::Op;
use crate::layers::pools::apply as pools;
use crate::stack::{Applied, Layer, StackError, World};

/// Does one step.
pub async fn apply(
    world: &World,
    op: &Op,
    facts: &GpuFacts,
) -> Result<Applied<GpuFacts>, StackError> {
    match op {
        Op::Pool(op) => {
            let done = pools::apply(world, Layer::Gpu, op, &facts.pools).await?;
            Ok(done.within(|facts: &mut GpuFacts| &mut facts.pools))
        }
        Op::Apply(object) => Ok(Applied::ended(apply_object(world, Layer::Gpu, object).await?)),
    }
}
