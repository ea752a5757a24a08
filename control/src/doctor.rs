//! What must hold before anything is touched and no plan would say: every type is offered where the
//! fleet goes, and its addresses suffice for the largest size. [`verdict`] is pure; [`look`] asks EC2.
//!
//! Not here: quotas and permissions, which AWS tells through services that `control` does not call yet.
//! Whether names fit IAM and images exist is found when a plan is made.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{Filter, LocationType};

use crate::aws::{Attempted as _, AwsError};
use crate::config::problem::Problem;
use crate::config::{ConfigError, FleetSpec};
use crate::layers::network::desired::desired;
use crate::layers::network::gate::{CONTROL_PLANE, PER_NODE};
use crate::layers::network::observe::zones;
use crate::stack::{StackError, World};

/// What EC2 says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Zones of the region that are available, sorted.
    pub zones: Vec<String>,
    /// The zones that offer an instance type; none when these credentials may not ask.
    pub offered: Option<BTreeMap<String, BTreeSet<String>>>,
}

/// Asks EC2.
///
/// # Errors
/// When it does not answer.
pub async fn look(world: &World, spec: &FleetSpec) -> Result<Facts, AwsError> {
    let types: BTreeSet<String> = spec.pools.iter().map(|p| p.instance_type.clone()).collect();
    let named = Filter::builder().name("instance-type");
    let named = named.set_values(Some(types.into_iter().collect())).build();
    let call = world.clients.ec2.describe_instance_type_offerings().filters(named);
    let call = call.location_type(LocationType::AvailabilityZone);
    let found = call.into_paginator().items().send().try_collect().await;
    let found = match found.attempted(|| "ask where the instance types are offered".to_owned()) {
        Ok(found) => Some(found),
        // What we may not read is unknown, and no problem.
        Err(error) if error.code() == Some("UnauthorizedOperation") => None,
        Err(error) => return Err(error),
    };
    let offered = found.map(|found| {
        let mut offered: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for one in found {
            if let (Some(kind), Some(zone)) = (one.instance_type(), one.location()) {
                offered.entry(kind.as_str().to_owned()).or_default().insert(zone.to_owned());
            }
        }
        offered
    });
    Ok(Facts { zones: zones(&world.clients).await?, offered })
}

/// Everything that stands in a fleet's way. Pure.
///
/// # Errors
/// [`StackError::Conflict`] when the region has too few zones.
pub fn verdict(spec: &FleetSpec, facts: &Facts) -> Result<Vec<Problem>, StackError> {
    let network = desired(spec, &facts.zones)?;
    let private: Vec<_> = network.subnets.iter().filter(|subnet| !subnet.public).collect();
    let mut problems = Vec::new();
    for (index, pool) in spec.pools.iter().enumerate() {
        let Some(offered) = &facts.offered else { continue };
        let none = BTreeSet::new();
        let offers = offered.get(&pool.instance_type).unwrap_or(&none);
        if !private.iter().any(|subnet| offers.contains(&subnet.zone)) {
            let asked: Vec<&str> = private.iter().map(|subnet| subnet.zone.as_str()).collect();
            let elsewhere: Vec<&str> = offers.iter().map(String::as_str).collect();
            let elsewhere = match elsewhere.is_empty() {
                true => "nor anywhere in the region".to_owned(),
                false => format!("but in {}", elsewhere.join(", ")),
            };
            let kind = &pool.instance_type;
            let message = format!("`{kind}` is not offered in {}, {elsewhere}", asked.join(", "));
            problems.push(Problem::new(format!("pools[{index}].instanceType"), message));
        }
    }
    let nodes: u32 = spec.pools.iter().map(|pool| pool.size.max).sum();
    let need = nodes.saturating_mul(PER_NODE).saturating_add(CONTROL_PLANE);
    let room: u32 = private.iter().map(|subnet| subnet.cidr.usable()).sum();
    if need > room {
        let message = format!(
            "{nodes} nodes at most need {need} addresses ({PER_NODE} a node), the private subnets \
             of `{}` have {room}",
            network.cidr
        );
        problems.push(Problem::new("network.cidr", message));
    }
    Ok(problems)
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
        let all = ["a", "b", "c"];
        let offered = [("m6i.large", &all[..]), ("p5.48xlarge", p5)];
        let offered = offered.map(|(kind, at)| (kind.to_owned(), at.iter().map(zone).collect()));
        Facts { zones: all.iter().map(zone).collect(), offered: Some(offered.into()) }
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
        let few = Facts { zones: vec!["us-east-1a".into()], offered: None };
        assert!(verdict(&spec("10.0.0.0/16", 8), &few).is_err());
    }
}
