//! The network: VPC, public and private subnets per zone, gateways, routes, security groups, VPC
//! endpoints; or a network that is there already, which is read, judged and left as it is.
//!
//! Needs nothing. Gives the VPC and its subnets. Nodes live in private subnets and leave through
//! NAT, or reach AWS through endpoints; load balancers find their subnets by the role tags.

pub mod apply;
pub mod desired;
pub mod gate;
pub mod observe;
pub mod plan;

#[cfg(test)]
mod tests;

use crate::config::network::{ExistingNetwork, NetworkSpec};
use crate::layers::network::observe::ExistingFacts;
use crate::stack::world::{NetworkGiven, SubnetGiven};
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

    async fn observe(world: &World, inputs: Option<&Inputs>) -> Result<NetworkFacts, StackError> {
        observe::observe(world, inputs).await
    }

    fn plan(inputs: &Inputs, facts: &NetworkFacts) -> Result<Vec<Step<Op>>, StackError> {
        plan::plan(&desired::wish(&inputs.spec, &facts.zones)?, facts)
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

    fn give(inputs: &Inputs, facts: &NetworkFacts, given: &mut Given) {
        let efa = desired::efa_group(&inputs.scope.fleet);
        let groups = facts.security_groups.iter();
        let efa = groups.filter(|g| g.ours && g.name == efa).map(|g| g.id.clone()).next();
        given.network = match &inputs.spec.network {
            NetworkSpec::Own(_) => own(facts),
            NetworkSpec::Existing(named) => facts.existing.as_ref().and_then(|e| shared(named, e)),
        };
        if let Some(network) = &mut given.network {
            network.efa_group = efa;
        }
    }
}

fn own(facts: &NetworkFacts) -> Option<NetworkGiven> {
    let subnets = |public: bool| {
        let subnets = facts.subnets.iter().filter(|s| s.public == public);
        subnets.map(|s| SubnetGiven { id: s.id.clone(), zone: s.zone.clone() }).collect()
    };
    facts.vpc.as_ref().map(|vpc| NetworkGiven {
        vpc: vpc.id.clone(),
        public_subnets: subnets(true),
        private_subnets: subnets(false),
        efa_group: None,
    })
}

fn shared(named: &ExistingNetwork, facts: &ExistingFacts) -> Option<NetworkGiven> {
    let subnets = |ids: &[String]| {
        let there = ids.iter().filter_map(|id| facts.subnets.iter().find(|s| s.id == *id));
        there.map(|s| SubnetGiven { id: s.id.clone(), zone: s.zone.clone() }).collect()
    };
    facts.vpc.as_ref().map(|vpc| NetworkGiven {
        vpc: vpc.id.clone(),
        public_subnets: subnets(&named.public_subnets),
        private_subnets: subnets(&named.private_subnets),
        efa_group: None,
    })
}
