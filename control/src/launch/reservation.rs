//! Capacity reservations and capacity blocks: what is there, and whether a pool fits into it.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{CapacityReservation, Filter};
use contract::names::TAG_FLEET;

use crate::aws::ec2::filter;
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::config::spec::{Capacity, Placement, PoolSpec};
use crate::stack::world::Zone;

/// A reservation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReservationFact {
    /// `active`, `scheduled`, `expired`, `cancelled`, `pending`, `failed`, …
    pub state: String,
    /// Whether it is a capacity block.
    pub block: bool,
    /// Instance type.
    pub instance_type: String,
    /// Its zone.
    pub zone: Zone,
    /// Instances that it holds.
    pub total: u32,
    /// Of these, not in use.
    pub free: u32,
    /// Of these, in use by the fleet itself.
    pub ours: u32,
    /// When it begins, where that is to come or past: RFC 3339.
    pub begins: Option<String>,
    /// When it ends, where it does: RFC 3339.
    pub ends: Option<String>,
    /// Name of the placement group that it was made in.
    pub placement_group: Option<String>,
}

/// The reservations of these ids; what does not exist is not among them.
///
/// # Errors
/// [`AwsError`] when EC2 does not answer or refuses.
pub async fn describe(
    clients: &Clients,
    fleet: &str,
    ids: &[String],
) -> Result<BTreeMap<String, ReservationFact>, AwsError> {
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let list = ids.join("`, `");
    // Not by filter: EC2 has none for the id. One that is unknown would refuse them all.
    let mut facts = BTreeMap::new();
    for id in ids {
        let call = clients.ec2.describe_capacity_reservations().capacity_reservation_ids(id);
        match call.send().await.attempted(|| format!("describe the reservation `{list}`")) {
            Ok(answer) => {
                for found in answer.capacity_reservations() {
                    let mut fact = fact(found);
                    fact.ours = in_use(clients, fleet, id).await?;
                    facts.insert(id.clone(), fact);
                }
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(facts)
}

fn fact(found: &CapacityReservation) -> ReservationFact {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let number = |value: Option<i32>| value.unwrap_or(0).unsigned_abs();
    let time = |value: Option<&aws_sdk_ec2::primitives::DateTime>| value.map(ToString::to_string);
    ReservationFact {
        state: found.state().map(|state| state.as_str().to_owned()).unwrap_or_default(),
        block: found.reservation_type().is_some_and(|kind| kind.as_str() == "capacity-block"),
        instance_type: text(found.instance_type()),
        zone: Zone {
            name: text(found.availability_zone()),
            id: text(found.availability_zone_id()),
        },
        total: number(found.total_instance_count()),
        free: number(found.available_instance_count()),
        ours: 0,
        begins: time(found.start_date()),
        ends: time(found.end_date()),
        placement_group: found
            .placement_group_arn()
            .and_then(|arn| arn.rsplit_once('/'))
            .map(|(_, name)| name.to_owned()),
    }
}

/// How many of the fleet's own instances run in a reservation.
async fn in_use(clients: &Clients, fleet: &str, id: &str) -> Result<u32, AwsError> {
    let living = Filter::builder().name("instance-state-name").values("pending").values("running");
    let call = clients.ec2.describe_instances().filters(filter("capacity-reservation-id", id));
    let call = call.filters(filter(&format!("tag:{TAG_FLEET}"), fleet)).filters(living.build());
    let found = call.into_paginator().items().send().try_collect().await;
    let found = found.attempted(|| format!("list the instances in the reservation `{id}`"))?;
    let count: usize = found.iter().map(|reservation| reservation.instances().len()).sum();
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Why a pool does not fit into its reservation; empty when it does. Pure.
#[must_use]
pub fn unfit(pool: &PoolSpec, fact: Option<&ReservationFact>) -> Vec<String> {
    let Some(id) = pool.capacity.reservation() else { return Vec::new() };
    let Some(fact) = fact else { return vec![format!("there is no reservation `{id}` here")] };
    let mut problems = Vec::new();
    let mut say = |message: String| problems.push(format!("`{id}` {message}"));
    let block = matches!(pool.capacity, Capacity::Block(_));
    if fact.block != block {
        let (is, asked) = if fact.block {
            ("is a capacity block", "capacity-block")
        } else {
            ("is no capacity block", "reserved")
        };
        say(format!("{is}: write `capacity: {asked}`"));
    }
    match (fact.state.as_str(), &fact.begins) {
        ("active", _) => {}
        ("scheduled", Some(begins)) => say(format!("begins at {begins}: come back then")),
        (state, _) => say(format!("is {state}: nothing can be launched into it")),
    }
    if fact.instance_type != pool.instance_type {
        say(format!("holds {}, and the pool asks for {}", fact.instance_type, pool.instance_type));
    }
    let need = pool.size.desired.saturating_sub(fact.ours);
    if need > fact.free {
        let ReservationFact { total, free, ours, .. } = fact;
        say(format!(
            "has {free} of {total} free, {ours} are the fleet's, and {need} more are asked"
        ));
    }
    if !pool.zones.is_empty() && !pool.zones.iter().any(|zone| fact.zone.is(zone)) {
        say(format!("lies in {} ({}), which `zones` leaves out", fact.zone.name, fact.zone.id));
    }
    match (&pool.placement, &fact.placement_group) {
        (Placement::Existing(asked), Some(has)) if asked == has => {}
        (_, Some(has)) => {
            say(format!("was made in the placement group `{has}`: name it with `placementGroup`"));
        }
        (Placement::Existing(asked), None) => {
            say(format!("was made in no placement group, and takes no instances of `{asked}`"));
        }
        (Placement::Anywhere | Placement::Cluster, None) => {}
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(more: &str) -> PoolSpec {
        let text = format!(
            "apiVersion: rollcall.dev/v1alpha1\nkind: Fleet\nname: prod\nkubernetes: \"1.34\"\n\
             agent: {{baked: true}}\npools:\n  - {{name: s, class: system, instanceType: m6i.large, \
             size: {{desired: 2}}}}\n  - {{name: h100, class: gpu, instanceType: p5.48xlarge, size: \
             {{desired: 4}}, reservation: cr-0123456789abcdef0, {more}}}\n"
        );
        crate::config::parse(&text, "fleet.yaml").unwrap().pools.remove(1)
    }

    fn good() -> ReservationFact {
        ReservationFact {
            state: "active".into(),
            instance_type: "p5.48xlarge".into(),
            zone: Zone { name: "us-east-1a".into(), id: "use1-az4".into() },
            total: 4,
            free: 4,
            ..ReservationFact::default()
        }
    }

    #[test]
    fn a_pool_that_fits_its_reservation_has_no_problem() {
        assert_eq!(unfit(&pool("capacity: reserved"), Some(&good())), Vec::<String>::new());
        let running = ReservationFact { free: 0, ours: 4, ..good() };
        assert_eq!(unfit(&pool("capacity: reserved"), Some(&running)), Vec::<String>::new());
        let block = ReservationFact { block: true, ..good() };
        let asked = pool("capacity: capacity-block, zones: [use1-az4]");
        assert_eq!(unfit(&asked, Some(&block)), Vec::<String>::new());
    }

    #[test]
    fn each_misfit_is_named() {
        type Change = fn(&mut ReservationFact);
        let cases: [(&str, Change, &str); 9] = [
            ("capacity: reserved", |f| f.block = true, "is a capacity block: write"),
            (
                "capacity: capacity-block",
                |_| {},
                "is no capacity block: write `capacity: reserved`",
            ),
            ("capacity: reserved", |f| f.state = "expired".into(), "is expired: nothing"),
            (
                "capacity: reserved",
                |f| {
                    f.state = "scheduled".into();
                    f.begins = Some("2026-12-01T11:30:00Z".into());
                },
                "begins at 2026-12-01T11:30:00Z",
            ),
            ("capacity: reserved", |f| f.instance_type = "p5en.48xlarge".into(), "holds p5en"),
            (
                "capacity: reserved",
                |f| (f.free, f.ours) = (1, 1),
                "has 1 of 4 free, 1 are the fleet's, and 3 more are asked",
            ),
            ("capacity: reserved, zones: [use1-az6]", |_| {}, "lies in us-east-1a (use1-az4)"),
            (
                "capacity: reserved",
                |f| f.placement_group = Some("ultra".into()),
                "was made in the placement group `ultra`",
            ),
            ("capacity: reserved, placementGroup: mine", |_| {}, "was made in no placement group"),
        ];
        for (asked, change, said) in cases {
            let mut fact = good();
            change(&mut fact);
            let problems = unfit(&pool(asked), Some(&fact));
            assert!(problems.len() == 1 && problems[0].contains(said), "{said}: {problems:?}");
        }
        assert!(unfit(&pool("capacity: reserved"), None)[0].starts_with("there is no reservation"));
    }
}
