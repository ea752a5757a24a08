//! The gpu layer: every pool that is not the system's, and what offers their GPUs to pods.
//!
//! Needs CoreDNS on system nodes. Gives proven GPU workers.

pub mod apply;
pub mod desired;
pub mod gate;
pub mod observe;
pub mod plan;

use crate::stack::{Applied, Gate, Given, Inputs, Layer, Scope, StackError, Step, Storey, World};

pub use observe::GpuFacts;
pub use plan::Op;

/// The gpu layer.
#[derive(Debug)]
pub struct Gpu;

impl Storey for Gpu {
    const LAYER: Layer = Layer::Gpu;
    type Facts = GpuFacts;
    type Op = Op;

    async fn observe(world: &World, inputs: Option<&Inputs>) -> Result<GpuFacts, StackError> {
        observe::observe(world, inputs).await
    }

    fn plan(inputs: &Inputs, facts: &GpuFacts) -> Result<Vec<Step<Op>>, StackError> {
        Ok(plan::plan(&desired::desired(inputs, facts)?, facts))
    }

    fn teardown(scope: &Scope, facts: &GpuFacts) -> Vec<Step<Op>> {
        plan::teardown(scope, facts)
    }

    async fn apply(
        world: &World,
        op: &Op,
        facts: &GpuFacts,
    ) -> Result<Applied<GpuFacts>, StackError> {
        apply::apply(world, op, facts).await
    }

    async fn gate(
        world: &World,
        inputs: &Inputs,
        facts: &mut GpuFacts,
    ) -> Result<Gate, StackError> {
        gate::wait(world, inputs, facts).await
    }

    fn give(_: &Inputs, _: &GpuFacts, _: &mut Given) {}
}
