//! A network that is there already: whether it fits, and the little that is put into it. Pure.

use super::{Op, guests, plan_tags};
use crate::layers::network::desired::{Adopted, GATEWAY_SERVICE, INTERFACE_SERVICES};
use crate::layers::network::observe::NetworkFacts;
use crate::layers::network::observe::existing::{ExistingFacts, ExistingSubnet, cluster_tag};
use crate::stack::{StackError, Step};

/// The steps up.
///
/// # Errors
/// [`StackError::Conflict`] with everything that keeps nodes from joining there.
pub(super) fn plan(adopted: &Adopted, facts: &NetworkFacts) -> Result<Vec<Step<Op>>, StackError> {
    if let Some(own) = &facts.vpc {
        return Err(StackError::Conflict {
            message: format!(
                "the fleet `{}` has a VPC of its own, `{}`, and the fleet file names `{}`",
                adopted.fleet, own.id, adopted.network.vpc
            ),
            hint: "take `network.existing` out of the file, or take the fleet down first".into(),
        });
    }
    let nothing = ExistingFacts::default();
    let problems = unfit(adopted, facts.existing.as_ref().unwrap_or(&nothing));
    if !problems.is_empty() {
        return Err(StackError::Conflict {
            message: format!("the existing network does not fit: {}", problems.join("; ")),
            hint: "put it right, or name other subnets: control never changes an existing network"
                .into(),
        });
    }
    let mut steps = Vec::new();
    let tag = cluster_tag(&adopted.fleet);
    let untagged: Vec<String> = facts
        .existing
        .iter()
        .flat_map(|existing| &existing.subnets)
        .filter(|subnet| !subnet.tags.contains(&tag))
        .map(|subnet| subnet.id.clone())
        .collect();
    if !untagged.is_empty() {
        let name = untagged.join(", ");
        let step = Step::change(0, "cluster tag", name, Op::Share(untagged));
        steps.push(step.because(format!("load balancers find their subnets by `{tag}`")));
    }
    let fleet = (adopted.fleet.as_str(), &adopted.tags);
    guests::plan_groups(fleet.0, fleet.1, &adopted.groups, facts, &mut steps);
    plan_tags(guests::group_tags(fleet, &adopted.groups, facts), facts, &mut steps);
    Ok(steps)
}

/// Everything for which no node would join in the network.
#[must_use]
pub(crate) fn unfit(adopted: &Adopted, facts: &ExistingFacts) -> Vec<String> {
    let network = &adopted.network;
    let Some(vpc) = &facts.vpc else {
        return vec![format!("there is no VPC `{}` in this region", network.vpc)];
    };
    let mut problems = Vec::new();
    if !(vpc.dns_support && vpc.dns_hostnames) {
        problems.push(format!(
            "DNS support or DNS host names are off in `{}`: nodes would not find the API server",
            vpc.id
        ));
    }
    for id in network.private_subnets.iter().chain(&network.public_subnets) {
        match facts.subnets.iter().find(|subnet| subnet.id == *id) {
            None => problems.push(format!("there is no subnet `{id}`")),
            Some(subnet) if subnet.vpc != vpc.id => {
                problems.push(format!("the subnet `{id}` lies in `{}`", subnet.vpc));
            }
            Some(_) => {}
        }
    }
    let private: Vec<&ExistingSubnet> =
        facts.subnets.iter().filter(|s| network.private_subnets.contains(&s.id)).collect();
    let mut zones: Vec<&str> = private.iter().map(|subnet| subnet.zone.id.as_str()).collect();
    zones.sort_unstable();
    zones.dedup();
    if zones.len() < 2 && private.len() == network.private_subnets.len() {
        let only = zones.join(", ");
        problems.push(format!("the private subnets lie in one zone ({only}); EKS needs two"));
    }
    problems.extend(private.iter().filter_map(|subnet| stuck(subnet, facts)));
    let public = facts.subnets.iter().filter(|s| network.public_subnets.contains(&s.id));
    problems.extend(public.filter(|subnet| !leads_to(subnet, "igw-")).map(|subnet| {
        format!("the public subnet `{}` has no default route to an internet gateway", subnet.id)
    }));
    problems
}

fn leads_to(subnet: &ExistingSubnet, prefix: &str) -> bool {
    subnet.way_out.as_ref().is_some_and(|target| target.starts_with(prefix)) && !subnet.blackhole
}

/// Why a node in a private subnet would reach nothing.
fn stuck(subnet: &ExistingSubnet, facts: &ExistingFacts) -> Option<String> {
    let id = &subnet.id;
    if subnet.blackhole {
        return Some(format!("the default route of `{id}` leads to something that is gone"));
    }
    if leads_to(subnet, "igw-") {
        let why = "nodes get no public address, and would reach nothing";
        return Some(format!("`{id}` leads straight to an internet gateway: {why}"));
    }
    if subnet.way_out.is_some() {
        return None;
    }
    let all = INTERFACE_SERVICES.iter().chain([&GATEWAY_SERVICE]);
    let missing: Vec<&str> =
        all.filter(|service| !facts.endpoints.iter().any(|e| e == *service)).copied().collect();
    (!missing.is_empty()).then(|| {
        let list = missing.join(", ");
        format!("`{id}` has no default route, and the VPC no endpoints for {list}")
    })
}
