//! Proves the network: NAT available, default routes, free addresses for the asked size.

use std::time::Duration;

use crate::aws::poll::{Waited, until};
use crate::config::FleetSpec;
use crate::config::network::{Nat, NetworkSpec, OwnNetwork};
use crate::layers::network::NetworkFacts;
use crate::layers::network::observe::{self, TableFact};
use crate::stack::{Gate, Inputs, StackError, World};

const DEADLINE: Duration = Duration::from_secs(600);
/// Addresses that the VPC CNI keeps on a node for its pods: an interface and a warm one.
pub const PER_NODE: u32 = 16;
/// Addresses that EKS wants free for the control plane's interfaces, upgrades included.
pub const CONTROL_PLANE: u32 = 16;

/// Waits until nothing is missing.
pub async fn wait(
    world: &World,
    inputs: &Inputs,
    facts: &mut NetworkFacts,
) -> Result<Gate, StackError> {
    let mut missing = Vec::new();
    let look = async || {
        let now = observe::observe(world, Some(inputs)).await?;
        missing = verdict(&inputs.spec, &now);
        *facts = now;
        Ok(missing.is_empty().then_some(()))
    };
    match until(world.pace, DEADLINE, &world.interrupt, look).await? {
        Waited::Came(()) => Ok(Gate::open(proven(&inputs.spec, facts))),
        Waited::TooLong => Ok(Gate::timed_out(missing.join("; "))),
    }
}

fn proven(spec: &FleetSpec, facts: &NetworkFacts) -> String {
    let free: u32 = free(spec, facts);
    match &spec.network {
        NetworkSpec::Existing(network) => {
            format!("{} is used as it is, {free} free node addresses", network.vpc)
        }
        NetworkSpec::Own(network) if network.nat == Nat::None => {
            let endpoints = facts.endpoints.len();
            format!("{endpoints} endpoints available, {free} free node addresses")
        }
        NetworkSpec::Own(_) => {
            format!("NAT available, routes lead out, {free} free node addresses")
        }
    }
}

/// Free addresses in the nodes' subnets.
fn free(spec: &FleetSpec, facts: &NetworkFacts) -> u32 {
    match (&spec.network, &facts.existing) {
        (NetworkSpec::Existing(network), Some(existing)) => {
            let private = |id: &String| network.private_subnets.contains(id);
            existing.subnets.iter().filter(|s| private(&s.id)).map(|s| s.free).sum()
        }
        _ => facts.subnets.iter().filter(|s| !s.public).map(|s| s.free).sum(),
    }
}

/// What is missing. Pure.
#[must_use]
pub fn verdict(spec: &FleetSpec, facts: &NetworkFacts) -> Vec<String> {
    let mut missing = match &spec.network {
        NetworkSpec::Own(network) => own(network, facts),
        // Whether it leads out was asked when the plan was made; it is nothing that comes by waiting.
        NetworkSpec::Existing(_) => Vec::new(),
    };
    let nodes: u32 = spec.pools.iter().map(|pool| pool.size.max).sum();
    let need = nodes * PER_NODE + CONTROL_PLANE;
    let room = free(spec, facts);
    // What runs already has its addresses, so the need is an upper bound; a fleet that fills its
    // network to the brim is named all the same.
    if room < need.min(CONTROL_PLANE + nodes) {
        missing.push(format!("{room} free addresses for up to {nodes} nodes"));
    }
    missing
}

fn own(network: &OwnNetwork, facts: &NetworkFacts) -> Vec<String> {
    let mut missing = Vec::new();
    if !facts.vpc.as_ref().is_some_and(|vpc| vpc.dns_support && vpc.dns_hostnames) {
        missing.push("the VPC has no DNS".to_owned());
    }
    for nat in facts.nats.iter().filter(|nat| nat.state != "available") {
        missing.push(format!("the NAT gateway `{}` is {}", nat.name, nat.state));
    }
    if facts.nats.is_empty() && network.nat != Nat::None {
        missing.push("there is no NAT gateway".to_owned());
    }
    let leads = |table: &&TableFact| table.way_out.is_some() || network.nat == Nat::None;
    for table in facts.tables.iter().filter(|table| !leads(table) || table.blackhole) {
        missing.push(format!("`{}` leads nowhere", table.name));
    }
    for endpoint in facts.endpoints.iter().filter(|endpoint| endpoint.state != "available") {
        missing.push(format!("the VPC endpoint `{}` is {}", endpoint.name, endpoint.state));
    }
    missing
}
