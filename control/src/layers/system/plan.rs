//! From the system layer as it is to the system layer as it should be. Pure.

use crate::aws::tagging::Tags;
use crate::layers::addons::desired::AddonWish;
use crate::layers::addons::plan as addons;
use crate::layers::pools::plan as pools;
use crate::layers::system::SystemFacts;
use crate::layers::system::desired::{COREDNS, Desired};
use crate::stack::{Scope, Step};

/// What a step of this layer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Something about a pool.
    Pool(pools::Op),
    /// Makes CoreDNS once a node is there that it can run on.
    CreateDns(AddonWish),
    /// Puts tags on CoreDNS, by its ARN.
    TagDns(String, Tags),
    /// Removes CoreDNS.
    DeleteDns,
}

/// Comes after every step of the pools.
const DNS_STAGE: u8 = 9;

/// The steps up.
#[must_use]
pub fn plan(desired: &Desired, facts: &SystemFacts) -> Vec<Step<Op>> {
    let mut steps: Vec<_> =
        pools::plan(&desired.pools, &facts.pools).into_iter().map(|s| s.map(Op::Pool)).collect();
    match &facts.dns {
        None => {
            let op = Op::CreateDns(desired.dns.clone());
            steps.push(Step::add(DNS_STAGE, "add-on", COREDNS, op));
        }
        Some(fact) => steps.extend(addons::tags(&desired.dns, fact, Op::TagDns)),
    }
    steps
}

/// The steps down.
#[must_use]
pub fn teardown(scope: &Scope, facts: &SystemFacts) -> Vec<Step<Op>> {
    let dns = facts.dns.iter().map(|_| Step::destroy(0, "add-on", COREDNS, Op::DeleteDns));
    let pools = pools::teardown(scope, &facts.pools).into_iter().map(|s| s.map(Op::Pool));
    dns.chain(pools).collect()
}
