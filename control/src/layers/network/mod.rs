//! The network: VPC, public and private subnets per zone, gateways, routes.
//!
//! Needs nothing. Gives the VPC and its subnets. Nodes live in private subnets and leave through
//! NAT; load balancers find their subnets by the role tags.

pub mod apply;
pub mod desired;
pub mod gate;
pub mod observe;
pub mod plan;

#[cfg(test)]
mod tests;

use crate::stack::world::NetworkGiven;
use crate::stack::{Applied, Gate, Given, Inputs, Layer, Scope, StackError, Step, Storey, World};

pub use observe::NetworkFacts;
pub use plan::Op;

/// The network layer.
#[derive(Debug)]
pub struct Network;

impl Storey for Network {
    const LAYER: Layer = Layer::Network;
    type Facts = NetworkFacts;
    type Op = Op;

    async fn observe(world: &World, _: Option<&Inputs>) -> Result<NetworkFacts, StackError> {
        observe::observe(world).await
    }

    fn plan(inputs: &Inputs, facts: &NetworkFacts) -> Result<Vec<Step<Op>>, StackError> {
        plan::plan(&desired::desired(&inputs.spec, &facts.zones)?, facts)
    }

    fn teardown(_: &Scope, facts: &NetworkFacts) -> Vec<Step<Op>> {
        plan::teardown(facts)
    }

    async fn apply(
        world: &World,
        op: &Op,
        facts: &NetworkFacts,
    ) -> Result<Applied<NetworkFacts>, StackError> {
        apply::apply(world, op, facts).await
    }

    async fn gate(
        world: &World,
        inputs: &Inputs,
        facts: &mut NetworkFacts,
    ) -> Result<Gate, StackError> {
        gate::wait(world, inputs, facts).await
    }

    fn give(_: &Inputs, facts: &NetworkFacts, given: &mut Given) {
        let ids = |public: bool| {
            let subnets = facts.subnets.iter().filter(|s| s.public == public);
            subnets.map(|s| s.id.clone()).collect::<Vec<_>>()
        };
        given.network = facts.vpc.as_ref().map(|vpc| NetworkGiven {
            vpc: vpc.id.clone(),
            public_subnets: ids(true),
            private_subnets: ids(false),
        });
    }
}
