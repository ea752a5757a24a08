//! From the network as it is to the network as it should be. Pure.

mod existing;
mod guests;

pub(crate) use existing::unfit;

use std::collections::BTreeMap;

use contract::names::TAG_SPEC;

use crate::layers::names::spec_hash;
use crate::layers::network::desired::{
    Desired, EndpointWish, GroupWish, NatWish, Rule, SubnetWish, TableWish, WayOut, Wish,
};
use crate::layers::network::observe::{GatewayFact, NetworkFacts, Surplus, TableFact};
use crate::layers::tags;
use crate::stack::{Layer, StackError, Step};

/// Tags of a resource.
pub type Tags = BTreeMap<String, String>;

/// What a step of this layer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes the VPC.
    CreateVpc(String, Tags),
    /// Turns the VPC's resolver and DNS names on.
    SetDns,
    /// Makes the internet gateway.
    CreateGateway(Tags),
    /// Attaches the internet gateway to the VPC.
    AttachGateway,
    /// Makes a subnet.
    CreateSubnet(SubnetWish, Tags),
    /// Takes an elastic address of this name.
    Allocate(String, Tags),
    /// Makes a NAT gateway.
    CreateNat(NatWish, Tags),
    /// Makes a route table of this name.
    CreateTable(String, Tags),
    /// Leads a table's default route there.
    SetRoute(String, WayOut),
    /// Has a subnet use a table.
    Associate(String, String),
    /// Makes a security group.
    CreateGroup(GroupWish, Tags),
    /// Has a security group of this name let something through.
    Allow(String, Rule),
    /// Makes a VPC endpoint for the service of this name.
    CreateEndpoint(EndpointWish, String, Tags),
    /// Has the endpoint of this name reach the subnets and tables of these names as well.
    ExtendEndpoint(String, Vec<String>, Vec<String>),
    /// Puts the cluster's tag on subnets of others.
    Share(Vec<String>),
    /// Takes it off again.
    Unshare(Vec<String>),
    /// Puts tags on what lacks them.
    Tag(Vec<String>, Tags),
    /// Removes VPC endpoints and waits until they are gone.
    DeleteEndpoints(Vec<String>),
    /// Removes a NAT gateway.
    DeleteNat(String),
    /// Gives an address back.
    Release(String),
    /// Removes a route table.
    DeleteTable(TableFact),
    /// Removes an interface that somebody left.
    DeleteInterface(String),
    /// Removes a security group that somebody left.
    DeleteSecurityGroup(String),
    /// Removes a subnet.
    DeleteSubnet(String),
    /// Removes the internet gateway.
    DeleteGateway(GatewayFact),
    /// Removes the VPC.
    DeleteVpc(String),
}

/// The steps up.
///
/// # Errors
/// [`StackError::Conflict`] when the VPC has other addresses than the file says, when the network
/// that it names does not fit, or when the region lacks a service.
pub fn plan(wish: &Wish, facts: &NetworkFacts) -> Result<Vec<Step<Op>>, StackError> {
    match wish {
        Wish::Own(desired) => plan_own(desired, facts),
        Wish::Existing(adopted) => existing::plan(adopted, facts),
    }
}

pub(super) fn plan_own(
    desired: &Desired,
    facts: &NetworkFacts,
) -> Result<Vec<Step<Op>>, StackError> {
    check_addresses(desired, facts)?;
    let mut steps = Vec::new();
    plan_vpc(desired, facts, &mut steps);
    plan_subnets(desired, facts, &mut steps);
    plan_ways_out(desired, facts, &mut steps);
    plan_tables(desired, facts, &mut steps);
    guests::plan_groups(&desired.vpc, &desired.tags, &desired.groups, facts, &mut steps);
    guests::plan_endpoints(desired, facts, &mut steps)?;
    plan_tags(wanted_tags(desired, facts), facts, &mut steps);
    for surplus in &facts.surplus {
        steps.push(surplus_step(surplus).because("is there once too often"));
    }
    Ok(steps)
}

fn own_tags(desired: &Desired, name: &str, spec: &[&str], extra: &[(&str, &str)]) -> Tags {
    tags_of((&desired.vpc, &desired.tags), name, spec, extra)
}

/// The tags of something of a fleet that has these of its own.
fn tags_of((fleet, own): (&str, &Tags), name: &str, spec: &[&str], extra: &[(&str, &str)]) -> Tags {
    let mut all = tags::of(fleet, Layer::Network, name, own);
    all.insert(TAG_SPEC.into(), spec_hash(spec));
    all.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    all
}

fn vpc_tags(desired: &Desired) -> Tags {
    own_tags(desired, &desired.vpc, &["vpc", &desired.cidr.to_string()], &[])
}

fn gateway_tags(desired: &Desired, name: &str) -> Tags {
    own_tags(desired, name, &["internet gateway"], &[])
}

fn subnet_tags(desired: &Desired, wish: &SubnetWish) -> Tags {
    // The AWS load balancer controller finds its subnets by these.
    let role =
        if wish.public { "kubernetes.io/role/elb" } else { "kubernetes.io/role/internal-elb" };
    let cidr = wish.cidr.to_string();
    own_tags(desired, &wish.name, &["subnet", &cidr, &wish.zone.name], &[(role, "1")])
}

fn nat_tags(desired: &Desired, wish: &NatWish) -> Tags {
    own_tags(desired, &wish.name, &["nat"], &[])
}

fn table_tags(desired: &Desired, name: &str) -> Tags {
    own_tags(desired, name, &["route table"], &[])
}

/// The tags of everything that is there and stays: id, name, tags.
#[must_use]
pub fn wanted_tags(desired: &Desired, facts: &NetworkFacts) -> Vec<(String, String, Tags)> {
    let mut wanted = Vec::new();
    let mut want = |id: Option<&String>, name: &str, tags: Tags| {
        wanted.extend(id.map(|id| (id.clone(), name.to_owned(), tags)));
    };
    want(facts.vpc.as_ref().map(|vpc| &vpc.id), &desired.vpc, vpc_tags(desired));
    if let Some(name) = &desired.gateway {
        let gateway = facts.gateway.as_ref().map(|gateway| &gateway.id);
        want(gateway, name, gateway_tags(desired, name));
    }
    for wish in &desired.subnets {
        let fact = facts.subnets.iter().find(|fact| fact.name == wish.name);
        want(fact.map(|fact| &fact.id), &wish.name, subnet_tags(desired, wish));
    }
    for wish in &desired.nats {
        let address = facts.addresses.iter().find(|fact| fact.name == wish.name);
        want(address.map(|fact| &fact.id), &wish.name, nat_tags(desired, wish));
        let nat = facts.nats.iter().find(|fact| fact.name == wish.name);
        want(nat.map(|fact| &fact.id), &wish.name, nat_tags(desired, wish));
    }
    for wish in &desired.tables {
        let fact = facts.tables.iter().find(|fact| fact.name == wish.name);
        want(fact.map(|fact| &fact.id), &wish.name, table_tags(desired, &wish.name));
    }
    let fleet = (desired.vpc.as_str(), &desired.tags);
    wanted.extend(guests::group_tags(fleet, &desired.groups, facts));
    wanted.extend(guests::endpoint_tags(desired, facts));
    wanted
}

/// Tags that are missing or say something else are put right; those of others are left alone.
fn plan_tags(wanted: Vec<(String, String, Tags)>, facts: &NetworkFacts, steps: &mut Vec<Step<Op>>) {
    for (id, name, mut tags) in wanted {
        let found = facts.tags.get(&id);
        tags.retain(|key, value| found.and_then(|found| found.get(key)) != Some(value));
        if tags.is_empty() {
            continue;
        }
        let keys: Vec<&str> = tags.keys().map(String::as_str).collect();
        let why = format!("`{}` missing or different on {id}", keys.join("`, `"));
        let step = Step::change(0, "tags", name, Op::Tag(vec![id], tags.clone()));
        steps.push(step.because(why));
    }
}

/// Addresses cannot be changed in place, and replacing a VPC means replacing the fleet.
fn check_addresses(desired: &Desired, facts: &NetworkFacts) -> Result<(), StackError> {
    let conflict = |what: String, is: &str, asked: String| StackError::Conflict {
        message: format!("{what} has the addresses `{is}`, and the fleet file asks for `{asked}`"),
        hint: "put the old `network` values back, or take the fleet down first".into(),
    };
    if let Some(vpc) = facts.vpc.as_ref().filter(|vpc| vpc.cidr != desired.cidr.to_string()) {
        return Err(conflict(format!("the VPC `{}`", vpc.id), &vpc.cidr, desired.cidr.to_string()));
    }
    for wish in &desired.subnets {
        let fact = facts.subnets.iter().find(|fact| fact.name == wish.name);
        if let Some(fact) = fact.filter(|fact| fact.cidr != wish.cidr.to_string()) {
            let what = format!("the subnet `{}`", wish.name);
            return Err(conflict(what, &fact.cidr, wish.cidr.to_string()));
        }
    }
    Ok(())
}

fn plan_vpc(desired: &Desired, facts: &NetworkFacts, steps: &mut Vec<Step<Op>>) {
    let cidr = desired.cidr.to_string();
    match &facts.vpc {
        None => {
            let op = Op::CreateVpc(cidr, vpc_tags(desired));
            steps.push(Step::add(0, "vpc", &desired.vpc, op));
            let step = Step::add(1, "vpc dns", &desired.vpc, Op::SetDns);
            steps.push(step.because("nodes find the API server by name"));
        }
        Some(vpc) if !(vpc.dns_support && vpc.dns_hostnames) => steps.push(
            Step::change(1, "vpc dns", &desired.vpc, Op::SetDns)
                .because("DNS support or DNS names are off"),
        ),
        Some(_) => {}
    }
    let Some(name) = &desired.gateway else {
        let op = |gateway: &GatewayFact| Op::DeleteGateway(gateway.clone());
        steps.extend(facts.gateway.iter().map(|gateway| {
            Step::destroy(4, "internet gateway", &gateway.id, op(gateway))
                .because("`nat: none` lets nothing out")
        }));
        return;
    };
    let attach = || Step::add(1, "gateway attachment", name, Op::AttachGateway);
    let vpc = facts.vpc.as_ref().map(|vpc| vpc.id.as_str());
    match &facts.gateway {
        None => {
            let op = Op::CreateGateway(gateway_tags(desired, name));
            steps.push(Step::add(0, "internet gateway", name, op));
            steps.push(attach());
        }
        Some(gateway) if gateway.vpc.is_none() || gateway.vpc.as_deref() != vpc => {
            steps.push(attach());
        }
        Some(_) => {}
    }
}

fn plan_subnets(desired: &Desired, facts: &NetworkFacts, steps: &mut Vec<Step<Op>>) {
    for wish in &desired.subnets {
        if facts.subnets.iter().any(|fact| fact.name == wish.name) {
            continue;
        }
        let op = Op::CreateSubnet(wish.clone(), subnet_tags(desired, wish));
        steps.push(Step::add(1, "subnet", &wish.name, op));
    }
}

fn plan_ways_out(desired: &Desired, facts: &NetworkFacts, steps: &mut Vec<Step<Op>>) {
    for wish in &desired.nats {
        let (name, tags) = (&wish.name, nat_tags(desired, wish));
        if !facts.addresses.iter().any(|fact| fact.name == *name) {
            steps.push(Step::add(0, "address", name, Op::Allocate(name.clone(), tags.clone())));
        }
        if !facts.nats.iter().any(|fact| fact.name == *name) {
            steps.push(Step::add(2, "nat gateway", name, Op::CreateNat(wish.clone(), tags)));
        }
    }
}

fn plan_tables(desired: &Desired, facts: &NetworkFacts, steps: &mut Vec<Step<Op>>) {
    for wish in &desired.tables {
        let fact = facts.tables.iter().find(|fact| fact.name == wish.name);
        if fact.is_none() {
            let op = Op::CreateTable(wish.name.clone(), table_tags(desired, &wish.name));
            steps.push(Step::add(1, "route table", &wish.name, op));
        }
        plan_route(wish, fact, facts, steps);
        for subnet in &wish.subnets {
            let id = facts.subnets.iter().find(|fact| fact.name == *subnet).map(|fact| &fact.id);
            let uses = |fact: &TableFact| fact.associations.iter().any(|(_, s)| Some(s) == id);
            if id.is_none() || !fact.is_some_and(uses) {
                let op = Op::Associate(wish.name.clone(), subnet.clone());
                steps.push(Step::add(2, "route association", subnet, op));
            }
        }
    }
}

fn plan_route(
    wish: &TableWish,
    fact: Option<&TableFact>,
    facts: &NetworkFacts,
    steps: &mut Vec<Step<Op>>,
) {
    let Some(way_out) = &wish.way_out else { return };
    let target = match way_out {
        WayOut::Internet => facts.gateway.as_ref().map(|gateway| &gateway.id),
        WayOut::Nat(name) => facts.nats.iter().find(|nat| nat.name == *name).map(|nat| &nat.id),
    };
    let leads = fact.and_then(|fact| fact.way_out.as_ref());
    let op = Op::SetRoute(wish.name.clone(), way_out.clone());
    match leads {
        None => steps.push(Step::add(3, "default route", &wish.name, op)),
        Some(_) if target.is_none() || leads != target => {
            let why = "leads to a gateway that is not ours or is gone";
            steps.push(Step::change(3, "default route", &wish.name, op).because(why));
        }
        Some(_) => {}
    }
}

fn surplus_step(surplus: &Surplus) -> Step<Op> {
    match surplus {
        Surplus::Nat(id) => Step::destroy(0, "nat gateway", id, Op::DeleteNat(id.clone())),
        Surplus::Address(id) => Step::destroy(1, "address", id, Op::Release(id.clone())),
        Surplus::Table(table) => {
            Step::destroy(1, "route table", &table.id, Op::DeleteTable(table.clone()))
        }
        Surplus::Subnet(id) => Step::destroy(3, "subnet", id, Op::DeleteSubnet(id.clone())),
        Surplus::Gateway(gateway) => {
            Step::destroy(3, "internet gateway", &gateway.id, Op::DeleteGateway(gateway.clone()))
        }
        Surplus::Vpc(id) => Step::destroy(4, "vpc", id, Op::DeleteVpc(id.clone())),
    }
}

/// The steps down: what others left in the VPC goes first, or nothing else can.
#[must_use]
pub fn teardown(facts: &NetworkFacts) -> Vec<Step<Op>> {
    let mut steps: Vec<_> = facts.surplus.iter().map(surplus_step).collect();
    for nat in &facts.nats {
        steps.push(Step::destroy(0, "nat gateway", &nat.name, Op::DeleteNat(nat.id.clone())));
    }
    for table in &facts.tables {
        let op = Op::DeleteTable(table.clone());
        steps.push(Step::destroy(1, "route table", &table.name, op));
    }
    for address in &facts.addresses {
        steps.push(Step::destroy(1, "address", &address.name, Op::Release(address.id.clone())));
    }
    steps.extend(guests::teardown(facts));
    for subnet in &facts.subnets {
        let op = Op::DeleteSubnet(subnet.id.clone());
        steps.push(Step::destroy(3, "subnet", &subnet.name, op));
    }
    if let Some(gateway) = &facts.gateway {
        let op = Op::DeleteGateway(gateway.clone());
        steps.push(Step::destroy(3, "internet gateway", &gateway.id, op));
    }
    if let Some(vpc) = &facts.vpc {
        steps.push(Step::destroy(4, "vpc", &vpc.id, Op::DeleteVpc(vpc.id.clone())));
    }
    steps.sort_by_key(|step| step.stage);
    steps
}
