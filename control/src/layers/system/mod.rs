//! The system layer: baseline nodes, then CoreDNS, so that no system pod ever has to run on a GPU.
//!
//! Needs the CNI's add-on, the node role and private subnets. Gives a place for system pods.

pub mod apply;
pub mod desired;
pub mod gate;
pub mod observe;
pub mod plan;

use crate::stack::{Applied, Gate, Given, Inputs, Layer, Scope, StackError, Step, Storey, World};

pub use observe::SystemFacts;
pub use plan::Op;

/// The system layer.
#[derive(Debug)]
pub struct System;

impl Storey for System {
    const LAYER: Layer = Layer::System;
    type Facts = SystemFacts;
    type Op = Op;

    async fn observe(world: &World, inputs: Option<&Inputs>) -> Result<SystemFacts, StackError> {
        observe::observe(world, inputs).await
    }

    fn plan(inputs: &Inputs, facts: &SystemFacts) -> Result<Vec<Step<Op>>, StackError> {
        Ok(plan::plan(&desired::desired(inputs, facts)?, facts))
    }

    fn teardown(scope: &Scope, facts: &SystemFacts) -> Vec<Step<Op>> {
        plan::teardown(scope, facts)
    }

    async fn apply(
        world: &World,
        op: &Op,
        facts: &SystemFacts,
    ) -> Result<Applied<SystemFacts>, StackError> {
        apply::apply(world, op, facts).await
    }

    async fn gate(
        world: &World,
        inputs: &Inputs,
        facts: &mut SystemFacts,
    ) -> Result<Gate, StackError> {
        gate::wait(world, inputs, facts).await
    }

    fn give(_: &Inputs, _: &SystemFacts, _: &mut Given) {}
}
