//! What stands in a network, the fleet's own or not: security groups, endpoints, and on the way down
//! what others left. Pure.

use super::{Op, Tags, tags_of};
use crate::layers::network::desired::{Desired, EndpointKind, EndpointWish, GroupWish};
use crate::layers::network::observe::{EndpointFact, NetworkFacts, SecurityGroupFact};
use crate::stack::{StackError, Step};

/// The security groups and their rules.
pub(super) fn plan_groups(
    fleet: &str,
    own: &Tags,
    wishes: &[GroupWish],
    facts: &NetworkFacts,
    steps: &mut Vec<Step<Op>>,
) {
    for wish in wishes {
        let fact = group(facts, &wish.name);
        if fact.is_none() {
            let op = Op::CreateGroup(wish.clone(), tags_of_group((fleet, own), wish));
            steps.push(Step::add(1, "security group", &wish.name, op));
        }
        for rule in &wish.rules {
            if !fact.is_some_and(|fact| fact.rules.contains(rule)) {
                let op = Op::Allow(wish.name.clone(), rule.clone());
                let name = format!("{}: {}", wish.name, rule.label());
                steps.push(Step::add(2, "security group rule", name, op));
            }
        }
    }
}

fn group<'a>(facts: &'a NetworkFacts, name: &str) -> Option<&'a SecurityGroupFact> {
    facts.security_groups.iter().find(|group| group.ours && group.name == name)
}

fn tags_of_group(fleet: (&str, &Tags), wish: &GroupWish) -> Tags {
    tags_of(fleet, &wish.name, &["security group"], &[])
}

/// The tags of the groups that are there: id, name, tags.
pub(super) fn group_tags(
    fleet: (&str, &Tags),
    wishes: &[GroupWish],
    facts: &NetworkFacts,
) -> Vec<(String, String, Tags)> {
    let there = wishes.iter().filter_map(|wish| {
        let fact = group(facts, &wish.name)?;
        Some((fact.id.clone(), wish.name.clone(), tags_of_group(fleet, wish)))
    });
    there.collect()
}

/// The endpoints: those that are missing, those that do not reach everything any more, and those that
/// the file names no more.
pub(super) fn plan_endpoints(
    desired: &Desired,
    facts: &NetworkFacts,
    steps: &mut Vec<Step<Op>>,
) -> Result<(), StackError> {
    for wish in &desired.endpoints {
        let Some(fact) = endpoint(facts, wish) else {
            let service = service(wish, facts)?;
            let op = Op::CreateEndpoint(wish.clone(), service, tags_of_endpoint(desired, wish));
            steps.push(Step::add(3, "vpc endpoint", &wish.name, op));
            continue;
        };
        let (subnets, tables) = unreached(wish, fact, facts);
        if !subnets.is_empty() || !tables.is_empty() {
            let why =
                format!("does not reach `{}`", [&subnets[..], &tables[..]].concat().join("`, `"));
            let op = Op::ExtendEndpoint(wish.name.clone(), subnets, tables);
            steps.push(Step::change(3, "vpc endpoint", &wish.name, op).because(why));
        }
    }
    let unwanted =
        |fact: &&EndpointFact| !desired.endpoints.iter().any(|wish| wish.name == fact.name);
    steps.extend(facts.endpoints.iter().filter(unwanted).map(|fact| {
        let op = Op::DeleteEndpoints(vec![fact.id.clone()]);
        let step = Step::destroy(4, "vpc endpoint", &fact.name, op);
        step.because("the fleet file names no such endpoint any more")
    }));
    Ok(())
}

fn endpoint<'a>(facts: &'a NetworkFacts, wish: &EndpointWish) -> Option<&'a EndpointFact> {
    facts.endpoints.iter().find(|fact| fact.name == wish.name)
}

/// The service's long name. Without the region's list, which a plan on an empty world may lack, it is
/// the one that all commercial regions use.
fn service(wish: &EndpointWish, facts: &NetworkFacts) -> Result<String, StackError> {
    match facts.services.get(wish.service) {
        Some((name, _)) => Ok(name.clone()),
        None => Err(StackError::Conflict {
            message: format!("the region offers no VPC endpoint for `{}`", wish.service),
            hint: "choose another region, or a network with NAT and `endpoints: none`".into(),
        }),
    }
}

/// The subnets and tables that an endpoint does not reach: they were made after it, or somebody took
/// them from it. Not the subnets in zones that do not offer the service.
fn unreached(
    wish: &EndpointWish,
    fact: &EndpointFact,
    facts: &NetworkFacts,
) -> (Vec<String>, Vec<String>) {
    match &wish.kind {
        EndpointKind::Gateway(tables) => {
            let reached = |name: &&String| {
                let id = facts.tables.iter().find(|table| table.name == **name).map(|t| &t.id);
                id.is_some_and(|id| fact.tables.contains(id))
            };
            (Vec::new(), tables.iter().filter(|name| !reached(name)).cloned().collect())
        }
        EndpointKind::Interface { subnets, .. } => {
            let zones = facts.services.get(wish.service).map(|(_, zones)| zones.as_slice());
            let missing = |name: &&String| {
                let there = facts.subnets.iter().find(|subnet| subnet.name == **name);
                there.is_none_or(|subnet| {
                    let offered = zones.is_none_or(|zones| zones.contains(&subnet.zone.name));
                    offered && !fact.subnets.contains(&subnet.id)
                })
            };
            (subnets.iter().filter(missing).cloned().collect(), Vec::new())
        }
    }
}

fn tags_of_endpoint(desired: &Desired, wish: &EndpointWish) -> Tags {
    let fleet = (desired.vpc.as_str(), &desired.tags);
    tags_of(fleet, &wish.name, &["vpc endpoint", wish.service], &[])
}

/// The tags of the endpoints that are there: id, name, tags.
pub(super) fn endpoint_tags(
    desired: &Desired,
    facts: &NetworkFacts,
) -> Vec<(String, String, Tags)> {
    let there = desired.endpoints.iter().filter_map(|wish| {
        let fact = endpoint(facts, wish)?;
        Some((fact.id.clone(), wish.name.clone(), tags_of_endpoint(desired, wish)))
    });
    there.collect()
}

/// The steps down. Endpoints go in one call: EC2 allows one every three seconds.
pub(super) fn teardown(facts: &NetworkFacts) -> Vec<Step<Op>> {
    let mut steps = Vec::new();
    if !facts.shared.is_empty() {
        let op = Op::Unshare(facts.shared.clone());
        let name = facts.shared.join(", ");
        // Last: by it the next run knows that what is left here is the fleet's.
        steps.push(Step::destroy(5, "cluster tag", name, op));
    }
    if !facts.endpoints.is_empty() {
        let ids = facts.endpoints.iter().map(|endpoint| endpoint.id.clone()).collect();
        let names: Vec<&str> = facts.endpoints.iter().map(|e| e.name.as_str()).collect();
        let op = Op::DeleteEndpoints(ids);
        steps.push(Step::destroy(0, "vpc endpoints", names.join(", "), op));
    }
    // Those in use belong to a service (NAT, control plane) that takes them along itself.
    for interface in facts.interfaces.iter().filter(|i| i.status == "available") {
        let op = Op::DeleteInterface(interface.id.clone());
        steps
            .push(Step::destroy(1, "interface", &interface.id, op).because(&interface.description));
    }
    for group in &facts.security_groups {
        let op = Op::DeleteSecurityGroup(group.id.clone());
        steps.push(Step::destroy(2, "security group", &group.name, op));
    }
    steps
}
