//! What holds what of a fleet's network: why EC2 answers `DependencyViolation`, by name. What stands in
//! the way goes with something that `down` removes, or is somebody else's, and then only they can.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{NetworkInterface, SecurityGroup};
use contract::names::{TAG_FLEET, TAG_POOL};
use serde::Serialize;

use crate::aws::ec2::{filter, name_of, tag_of};
use crate::aws::{Attempted as _, AwsError};
use crate::stack::World;

/// One thing that cannot go before others have gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    /// What kind of thing is held.
    pub kind: &'static str,
    /// Its name, or its id where it has none.
    pub name: String,
    /// What holds it.
    pub by: Vec<Holder>,
}

/// What holds something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// What it is, in words: `interface eni-0ab of instance i-0cd`.
    pub what: String,
    /// With what it goes; none when `down` does not remove it.
    pub goes_with: Option<String>,
}

/// The network, as far as things in it hold each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockFacts {
    /// Ids and names of the fleet's subnets and security groups.
    pub names: BTreeMap<String, String>,
    /// The interfaces.
    pub interfaces: Vec<InterfaceFact>,
    /// Security groups whose rules speak of others: the group and those it speaks of.
    pub rules: Vec<(String, Vec<String>)>,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceFact {
    /// Id.
    pub id: String,
    /// The subnet that it is in.
    pub subnet: String,
    /// The security groups that it is in.
    pub groups: Vec<String>,
    /// `in-use`, `available`, …
    pub status: String,
    /// What its maker wrote about it.
    pub description: String,
    /// The instance that it belongs to.
    pub instance: Option<String>,
    /// The pool that its tags name.
    pub pool: Option<String>,
}

/// Reads what holds what in the fleet's VPCs.
///
/// # Errors
/// When EC2 does not answer or refuses.
pub async fn observe(world: &World) -> Result<BlockFacts, AwsError> {
    let (ec2, fleet) = (&world.clients.ec2, world.scope.fleet.as_str());
    let owned = || filter(&format!("tag:{TAG_FLEET}"), fleet);
    let vpcs = ec2.describe_vpcs().filters(owned()).into_paginator().items().send();
    let vpcs = vpcs.try_collect().await.attempted(|| format!("list the VPCs of `{fleet}`"))?;
    let mut facts = BlockFacts::default();
    for vpc in vpcs.iter().filter_map(|vpc| vpc.vpc_id()) {
        let subnets = ec2.describe_subnets().filters(filter("vpc-id", vpc));
        let subnets = subnets.into_paginator().items().send().try_collect().await;
        for subnet in subnets.attempted(|| format!("list the subnets of `{vpc}`"))? {
            let id = subnet.subnet_id().unwrap_or_default().to_owned();
            facts.names.insert(id, name_of(subnet.tags()));
        }
        let groups = ec2.describe_security_groups().filters(filter("vpc-id", vpc));
        let groups = groups.into_paginator().items().send().try_collect().await;
        for group in groups.attempted(|| format!("list the security groups of `{vpc}`"))? {
            let id = group.group_id().unwrap_or_default().to_owned();
            facts.names.insert(id.clone(), group.group_name().unwrap_or_default().to_owned());
            facts.rules.extend(spoken_of(&group).map(|others| (id, others)));
        }
        let pages = ec2.describe_network_interfaces().filters(filter("vpc-id", vpc));
        let interfaces = pages.into_paginator().items().send().try_collect().await;
        let interfaces = interfaces.attempted(|| format!("list the interfaces of `{vpc}`"))?;
        facts.interfaces.extend(interfaces.iter().map(interface));
    }
    Ok(facts)
}

fn interface(found: &NetworkInterface) -> InterfaceFact {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    InterfaceFact {
        id: text(found.network_interface_id()),
        subnet: text(found.subnet_id()),
        groups: found.groups().iter().map(|group| text(group.group_id())).collect(),
        status: found.status().map(|status| status.as_str().to_owned()).unwrap_or_default(),
        description: text(found.description()),
        instance: found.attachment().and_then(|a| a.instance_id()).map(str::to_owned),
        pool: tag_of(found.tag_set(), TAG_POOL).map(str::to_owned),
    }
}

/// The other groups that a group's rules speak of.
fn spoken_of(group: &SecurityGroup) -> Option<Vec<String>> {
    let rules = group.ip_permissions().iter().chain(group.ip_permissions_egress());
    let others = rules.flat_map(|rule| rule.user_id_group_pairs());
    let mut others: Vec<_> = others.filter_map(|pair| pair.group_id()).map(str::to_owned).collect();
    others.retain(|other| Some(other.as_str()) != group.group_id());
    others.sort();
    others.dedup();
    (!others.is_empty()).then_some(others)
}

/// What holds what, subnets first. Pure.
#[must_use]
pub fn blocks(fleet: &str, facts: &BlockFacts) -> Vec<Block> {
    let mut held: BTreeMap<(&'static str, &str), Vec<Holder>> = BTreeMap::new();
    for interface in &facts.interfaces {
        let holder = holder(fleet, interface);
        held.entry(("subnet", &interface.subnet)).or_default().push(holder.clone());
        for group in &interface.groups {
            held.entry(("security group", group)).or_default().push(holder.clone());
        }
    }
    for (group, others) in &facts.rules {
        let named = facts.names.get(group).map_or(group.as_str(), String::as_str);
        for other in others {
            let holder = Holder {
                what: format!("a rule of the security group {named}"),
                goes_with: Some("its group".to_owned()),
            };
            held.entry(("security group", other)).or_default().push(holder);
        }
    }
    // A VPC's default group goes with the VPC and stands in nobody's way.
    let is_default = |kind: &str, name: &str| kind == "security group" && name == "default";
    let mut blocks: Vec<Block> = held
        .into_iter()
        .map(|((kind, id), mut by)| {
            by.sort();
            let name = facts.names.get(id).filter(|name| !name.is_empty());
            Block { kind, name: name.cloned().unwrap_or_else(|| id.to_owned()), by }
        })
        .filter(|block| !is_default(block.kind, &block.name))
        .collect();
    blocks.sort_by(|a, b| (b.kind, &a.name).cmp(&(a.kind, &b.name)));
    blocks
}

/// Who an interface belongs to, by what its maker wrote (EC2 user guide, "Requester-managed network
/// interfaces"; amazon-vpc-cni-k8s for `aws-K8S`).
fn holder(fleet: &str, interface: &InterfaceFact) -> Holder {
    let InterfaceFact { id, description, .. } = interface;
    let rest = |prefix: &str| description.strip_prefix(prefix).map(str::to_owned);
    let of = |what: String, goes_with: &str| Holder { what, goes_with: Some(goes_with.to_owned()) };
    if let Some(instance) = &interface.instance {
        let what = format!("instance {instance} ({id})");
        return match &interface.pool {
            Some(pool) => of(what, &format!("node group {pool}")),
            None => Holder { what, goes_with: None },
        };
    }
    if let Some(nat) = rest("Interface for NAT Gateway ") {
        return of(format!("nat gateway {nat} ({id})"), "the nat gateway");
    }
    if rest("Amazon EKS ").is_some_and(|name| name.starts_with(fleet)) {
        return of(format!("the control plane's interface ({id})"), "the eks cluster");
    }
    if let Some(balancer) = rest("ELB ") {
        return of(format!("load balancer {balancer} ({id})"), "its Service, or by its tag");
    }
    if interface.status == "available" {
        return of(format!("interface {id} that nobody uses, {description}"), "the network");
    }
    let about = if description.is_empty() { "no description" } else { description };
    Holder { what: format!("interface {id}, {about}"), goes_with: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(id: &str, description: &str) -> InterfaceFact {
        InterfaceFact {
            id: id.into(),
            subnet: "subnet-1".into(),
            groups: vec!["sg-1".into()],
            status: "in-use".into(),
            description: description.into(),
            ..InterfaceFact::default()
        }
    }

    #[test]
    fn each_holder_is_named_with_what_it_goes_with() {
        let node = InterfaceFact {
            instance: Some("i-1".into()),
            pool: Some("h100".into()),
            ..interface("eni-1", "")
        };
        let left =
            InterfaceFact { status: "available".into(), ..interface("eni-2", "aws-K8S-i-9") };
        let cases = [
            (node, Some("node group h100")),
            (left, Some("the network")),
            (interface("eni-3", "Interface for NAT Gateway nat-1"), Some("the nat gateway")),
            (interface("eni-4", "Amazon EKS prod"), Some("the eks cluster")),
            (interface("eni-5", "ELB net/a/1"), Some("its Service, or by its tag")),
            (interface("eni-6", "RDSNetworkInterface"), None),
            (InterfaceFact { instance: Some("i-2".into()), ..interface("eni-7", "") }, None),
        ];
        for (fact, goes_with) in cases {
            assert_eq!(holder("prod", &fact).goes_with.as_deref(), goes_with, "{fact:?}");
        }
    }

    #[test]
    fn subnets_and_groups_are_held_by_interfaces_and_groups_by_rules() {
        let names = [("subnet-1", "prod-private-a"), ("sg-1", "nodes"), ("sg-2", "default")];
        let facts = BlockFacts {
            names: names.map(|(id, name)| (id.to_owned(), name.to_owned())).into(),
            interfaces: vec![interface("eni-6", "RDSNetworkInterface")],
            rules: vec![("sg-9".into(), vec!["sg-1".into()]), ("sg-1".into(), vec!["sg-2".into()])],
        };
        let found = blocks("prod", &facts);
        let rows: Vec<_> = found.iter().map(|b| (b.kind, b.name.as_str(), b.by.len())).collect();
        assert_eq!(rows, [("subnet", "prod-private-a", 1), ("security group", "nodes", 2)]);
    }
}
