//! What must hold before anything is touched and no plan would say: every type is offered where the
//! fleet goes, and its addresses suffice for the largest size. [`verdict`] is pure; [`look`] asks EC2.
//!
//! Not here: quotas and permissions, which AWS tells through services that `control` does not call yet.
//! Whether names fit IAM and images exist is found when a plan is made.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{Filter, LocationType};

use crate::aws::ec2::{self, TypeFacts};
use crate::aws::{Attempted as _, AwsError};
use crate::config::network::{NetworkSpec, OwnNetwork};
use crate::config::problem::Problem;
use crate::config::spec::PoolSpec;
use crate::config::{ConfigError, FleetSpec};
use crate::launch::reservation::{self, ReservationFact};
use crate::layers::network::desired::{Wish, chosen, wish};
use crate::layers::network::gate::{CONTROL_PLANE, PER_NODE};
use crate::layers::network::observe::{ExistingFacts, existing, zones};
use crate::layers::network::plan::unfit;
use crate::stack::world::Zone;
use crate::stack::{StackError, World};

/// What EC2 says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Zones of the region that are available, sorted.
    pub zones: Vec<Zone>,
    /// The zones that offer an instance type; none when these credentials may not ask.
    pub offered: Option<BTreeMap<String, BTreeSet<String>>>,
    /// What the instance types are, of those that EC2 knows.
    pub types: BTreeMap<String, TypeFacts>,
    /// The network that the file names, where it is there already.
    pub existing: Option<ExistingFacts>,
    /// The reservations that pools name, by id.
    pub reservations: BTreeMap<String, ReservationFact>,
}

/// Asks EC2.
///
/// # Errors
/// When it does not answer.
pub async fn look(world: &World, spec: &FleetSpec) -> Result<Facts, AwsError> {
    let clients = &world.clients;
    let offered = offered(world, spec).await?;
    // A type that is offered nowhere may be none at all, and EC2 would refuse the whole question.
    let known = |kind: &&String| offered.as_ref().is_none_or(|offered| offered.contains_key(*kind));
    let kinds = spec.pools.iter().map(|pool| &pool.instance_type);
    let kinds: Vec<String> = kinds.filter(known).cloned().collect();
    let reserved = spec.pools.iter().filter_map(|pool| pool.capacity.reservation());
    let reserved: Vec<String> = reserved.map(str::to_owned).collect();
    Ok(Facts {
        zones: zones(clients).await?,
        offered,
        types: ec2::instance_types(clients, &kinds).await?,
        existing: match &spec.network {
            NetworkSpec::Existing(named) => Some(existing::observe(clients, named).await?),
            NetworkSpec::Own(_) => None,
        },
        reservations: reservation::describe(clients, &spec.name, &reserved).await?,
    })
}

async fn offered(
    world: &World,
    spec: &FleetSpec,
) -> Result<Option<BTreeMap<String, BTreeSet<String>>>, AwsError> {
    let types: BTreeSet<String> = spec.pools.iter().map(|p| p.instance_type.clone()).collect();
    let named = Filter::builder().name("instance-type");
    let named = named.set_values(Some(types.into_iter().collect())).build();
    let call = world.clients.ec2.describe_instance_type_offerings().filters(named);
    let call = call.location_type(LocationType::AvailabilityZone);
    let found = call.into_paginator().items().send().try_collect().await;
    let found = match found.attempted(|| "ask where the instance types are offered".to_owned()) {
        Ok(found) => found,
        // What we may not read is unknown, and no problem.
        Err(error) if error.code() == Some("UnauthorizedOperation") => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut offered: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for one in found {
        if let (Some(kind), Some(zone)) = (one.instance_type(), one.location()) {
            offered.entry(kind.as_str().to_owned()).or_default().insert(zone.to_owned());
        }
    }
    Ok(Some(offered))
}

/// Everything that stands in a fleet's way. Pure.
///
/// # Errors
/// [`StackError::Conflict`] when the region has too few zones, or not those that are named.
pub fn verdict(spec: &FleetSpec, facts: &Facts) -> Result<Vec<Problem>, StackError> {
    let mut problems = Vec::new();
    let zones = match &spec.network {
        NetworkSpec::Own(network) => chosen(network, &facts.zones)?,
        NetworkSpec::Existing(named) => {
            let nothing = ExistingFacts::default();
            let found = facts.existing.as_ref().unwrap_or(&nothing);
            if let Wish::Existing(adopted) = wish(spec, &facts.zones)? {
                let unfit = unfit(&adopted, found).into_iter();
                problems.extend(unfit.map(|message| Problem::new("network.existing", message)));
            }
            let private = found.subnets.iter().filter(|s| named.private_subnets.contains(&s.id));
            private.map(|subnet| subnet.zone.clone()).collect()
        }
    };
    for (index, pool) in spec.pools.iter().enumerate() {
        let path = format!("pools[{index}]");
        let zones = of_pool(pool, &zones);
        problems.extend(not_offered(&path, pool, &zones, facts));
        problems.extend(without_efa(&path, pool, facts));
        let reservation = pool.capacity.reservation().and_then(|id| facts.reservations.get(id));
        let unfit = reservation::unfit(pool, reservation).into_iter();
        problems.extend(unfit.map(|message| Problem::new(format!("{path}.reservation"), message)));
    }
    if let NetworkSpec::Own(network) = &spec.network {
        problems.extend(crowded(spec, network));
    }
    Ok(problems)
}

/// The zones that a pool's nodes may come up in.
fn of_pool(pool: &PoolSpec, zones: &[Zone]) -> Vec<Zone> {
    let meant = |zone: &&Zone| pool.zones.is_empty() || pool.zones.iter().any(|word| zone.is(word));
    zones.iter().filter(meant).cloned().collect()
}

fn not_offered(path: &str, pool: &PoolSpec, zones: &[Zone], facts: &Facts) -> Option<Problem> {
    if zones.is_empty() && !pool.zones.is_empty() {
        let message = format!("the fleet has no subnet in `{}`", pool.zones.join("`, `"));
        return Some(Problem::new(format!("{path}.zones"), message));
    }
    let none = BTreeSet::new();
    let kind = &pool.instance_type;
    let offers = facts.offered.as_ref()?.get(kind).unwrap_or(&none);
    if zones.is_empty() || zones.iter().any(|zone| offers.contains(&zone.name)) {
        return None;
    }
    let asked: Vec<&str> = zones.iter().map(|zone| zone.name.as_str()).collect();
    let elsewhere: Vec<&str> = offers.iter().map(String::as_str).collect();
    let elsewhere = match elsewhere.is_empty() {
        true => "nor anywhere in the region".to_owned(),
        false => format!("but in {}", elsewhere.join(", ")),
    };
    let message = format!("`{kind}` is not offered in {}, {elsewhere}", asked.join(", "));
    Some(Problem::new(format!("{path}.instanceType"), message))
}

fn without_efa(path: &str, pool: &PoolSpec, facts: &Facts) -> Option<Problem> {
    let kind = facts.types.get(&pool.instance_type).filter(|_| pool.efa)?;
    let message = format!("`{}` has no EFA", pool.instance_type);
    (kind.efa_devices == 0).then(|| Problem::new(format!("{path}.efa"), message))
}

/// An own network whose addresses do not suffice for the largest size. How many are free in an
/// existing one, the network's gate looks at: there, what runs already has its own.
fn crowded(spec: &FleetSpec, network: &OwnNetwork) -> Option<Problem> {
    let nodes: u32 = spec.pools.iter().map(|pool| pool.size.max).sum();
    let need = nodes.saturating_mul(PER_NODE).saturating_add(CONTROL_PLANE);
    let room: u32 =
        (0_u32..).take(network.zones.count()).map(|at| network.cidr.part(3, at).usable()).sum();
    (need > room).then(|| {
        let message = format!(
            "{nodes} nodes at most need {need} addresses ({PER_NODE} a node), the private subnets \
             of `{}` have {room}",
            network.cidr
        );
        Problem::new("network.cidr", message)
    })
}

/// Refuses when anything stands in the fleet's way. `named` is how the fleet file is called.
///
/// # Errors
/// All problems at once, or what could not be read.
pub async fn examine(world: &World, spec: &FleetSpec, named: &str) -> anyhow::Result<()> {
    let facts = look(world, spec).await?;
    let problems = verdict(spec, &facts)?;
    match problems.is_empty() {
        true => Ok(()),
        false => Err(ConfigError::Problems { path: named.to_owned(), problems }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(cidr: &str, max: u32) -> FleetSpec {
        let text = format!(
            "apiVersion: rollcall.dev/v1alpha1\nkind: Fleet\nname: prod\nkubernetes: \"1.34\"\n\
             agent: {{baked: true}}\nnetwork: {{zones: 2, cidr: {cidr}}}\npools:\n  - {{name: s, \
             class: system, instanceType: m6i.large, size: {{desired: 2}}}}\n  - {{name: h100, \
             class: gpu, instanceType: p5.48xlarge, size: {{desired: 1, max: {max}}}}}\n"
        );
        crate::config::parse(&text, "fleet.yaml").unwrap()
    }

    fn facts(p5: &[&str]) -> Facts {
        let zone = |letter: &&str| format!("us-east-1{letter}");
        let known = |letter: &&str| Zone { name: zone(letter), id: format!("use1-az-{letter}") };
        let all = ["a", "b", "c"];
        let offered = [("m6i.large", &all[..]), ("p5.48xlarge", p5)];
        let offered = offered.map(|(kind, at)| (kind.to_owned(), at.iter().map(zone).collect()));
        Facts {
            zones: all.iter().map(known).collect(),
            offered: Some(offered.into()),
            ..Facts::default()
        }
    }

    #[test]
    fn a_fleet_that_fits_has_no_problem() {
        assert_eq!(verdict(&spec("10.0.0.0/16", 8), &facts(&["b"])).unwrap(), []);
        // What may not be read is no problem.
        let unread = Facts { offered: None, ..facts(&[]) };
        assert_eq!(verdict(&spec("10.0.0.0/16", 8), &unread).unwrap(), []);
    }

    #[test]
    fn all_that_stands_in_the_way_is_named_with_its_place() {
        let said = |cidr, max, p5: &[&str]| -> Vec<String> {
            let problems = verdict(&spec(cidr, max), &facts(p5)).unwrap();
            problems.iter().map(ToString::to_string).collect()
        };
        let elsewhere = "pools[1].instanceType: `p5.48xlarge` is not offered in us-east-1a, \
                         us-east-1b, but in us-east-1c";
        assert_eq!(said("10.0.0.0/16", 8, &["c"]), [elsewhere]);
        let nowhere = said("10.0.0.0/20", 100, &[]);
        assert!(nowhere[0].ends_with("nor anywhere in the region"), "{nowhere:?}");
        // 102 nodes of 16 addresses and the control plane's 16; two /23.
        let narrow = "network.cidr: 102 nodes at most need 1648 addresses (16 a node), the private \
                      subnets of `10.0.0.0/20` have 1014";
        assert_eq!(nowhere[1], narrow);
    }

    #[test]
    fn a_region_with_too_few_zones_is_refused() {
        let few = Facts { zones: facts(&[]).zones[..1].to_vec(), ..Facts::default() };
        assert!(verdict(&spec("10.0.0.0/16", 8), &few).is_err());
    }
}
