//! Proves the gpu layer: every node Ready and its GPUs proven and on offer, or a named reason.

use crate::layers::gpu::{GpuFacts, observe};
use crate::layers::pools::gate as pools;
use crate::stack::{Gate, Inputs, Layer, StackError, World};

/// Waits until every node has its verdict.
pub async fn wait(
    world: &World,
    inputs: &Inputs,
    facts: &mut GpuFacts,
) -> Result<Gate, StackError> {
    let gate = pools::wait(world, inputs, Layer::Gpu).await?;
    *facts = observe::observe(world, Some(inputs)).await?;
    Ok(gate)
}
