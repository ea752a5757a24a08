//! What must hold before anything is touched and no plan would say: every type is offered where the
//! fleet goes, its addresses suffice for the largest size, the account may have so much, reservations
//! are open, images fit, and the credentials may do it. [`verdict`] is pure; [`look`] asks AWS.
//!
//! Whether names fit IAM is no question: they are made to fit (`layers::names`).

pub mod permissions;
pub mod quotas;

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{Filter, LocationType};

use crate::ami::catalogue;
use crate::ami::choose::choose;
use crate::ami::fit::{Need, misfits};
use crate::ami::image::Image;
use crate::aws::ec2::{self, TypeFacts};
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::config::network::{NetworkSpec, OwnNetwork};
use crate::config::problem::Problem;
use crate::config::spec::{ImageSource, PoolSpec};
use crate::config::{ConfigError, Document, FleetSpec};
use crate::doctor::permissions::PermissionFacts;
use crate::doctor::quotas::QuotaFacts;
use crate::launch::reservation::{self, ReservationFact};
use crate::layers::network::desired::{Wish, chosen, wish};
use crate::layers::network::gate::{CONTROL_PLANE, PER_NODE};
use crate::layers::network::observe::{ExistingFacts, existing, zones};
use crate::layers::network::plan::unfit;
use crate::stack::world::Zone;
use crate::stack::{StackError, World};

/// What AWS says.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// The images that pools name, of those that exist, by id; all that were baked, where a pool takes
    /// a channel's.
    pub images: BTreeMap<String, Image>,
    /// What the account may have, and what of it is used.
    pub quotas: QuotaFacts,
    /// What the credentials may do.
    pub permissions: PermissionFacts,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What stands in the fleet's way.
    pub problems: Vec<Problem>,
    /// What may, and cannot be told from here.
    pub doubts: Vec<String>,
}

/// Asks AWS.
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
    let existing = async {
        match &spec.network {
            NetworkSpec::Existing(named) => existing::observe(clients, named).await.map(Some),
            NetworkSpec::Own(_) => Ok(None),
        }
    };
    let permissions = async { permissions::look(clients, &clients.caller().await?.arn).await };
    let (zones, types, existing, reservations, images, quotas, permissions) = tokio::try_join!(
        zones(clients),
        ec2::instance_types(clients, &kinds),
        existing,
        reservation::describe(clients, &spec.name, &reserved),
        images(clients, spec),
        quotas::look(clients, &spec.name),
        permissions,
    )?;
    Ok(Facts { zones, offered, types, existing, reservations, images, quotas, permissions })
}

async fn images(clients: &Clients, spec: &FleetSpec) -> Result<BTreeMap<String, Image>, AwsError> {
    let named = spec.pools.iter().filter_map(|pool| pool.image.named());
    let mut images = catalogue::named(clients, named.map(str::to_owned)).await?;
    if spec.pools.iter().any(|pool| pool.image.channel().is_some()) {
        let baked = catalogue::baked(clients).await?;
        images.extend(baked.into_iter().map(|image| (image.id.clone(), image)));
    }
    Ok(images)
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
pub fn verdict(spec: &FleetSpec, facts: &Facts) -> Result<Findings, StackError> {
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
        problems.extend(image_unfit(&path, pool, spec, facts));
        let reservation = pool.capacity.reservation().and_then(|id| facts.reservations.get(id));
        let unfit = reservation::unfit(pool, reservation).into_iter();
        problems.extend(unfit.map(|message| Problem::new(format!("{path}.reservation"), message)));
    }
    if let NetworkSpec::Own(network) = &spec.network {
        problems.extend(crowded(spec, network));
    }
    problems.extend(quotas::short(spec, &facts.types, &facts.quotas));
    let doubts = facts.permissions.doubt().into_iter().chain(facts.quotas.doubt());
    Ok(Findings { problems, doubts: doubts.collect() })
}

/// What stands against the image that a pool would boot, all at once.
fn image_unfit(path: &str, pool: &PoolSpec, spec: &FleetSpec, facts: &Facts) -> Vec<Problem> {
    let need = Need::of(spec, pool, facts.types.get(&pool.instance_type));
    let at = |field: &str| format!("{path}.{field}");
    match &pool.image {
        ImageSource::Recommended => Vec::new(),
        ImageSource::Named(id) => match facts.images.get(id) {
            Some(image) => {
                let found = misfits(image, &need).into_iter();
                found.map(|misfit| Problem::new(at(misfit.field()), misfit.message)).collect()
            }
            None => {
                let message = format!("there is no image `{id}` that this account may use");
                vec![Problem::new(at("image"), message)]
            }
        },
        ImageSource::Channel(channel) => {
            let all: Vec<Image> = facts.images.values().cloned().collect();
            let none = choose(&all, channel, &pool.name, &need).err();
            none.into_iter().map(|none| Problem::new(at("image.channel"), none.message)).collect()
        }
    }
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

/// Refuses when anything stands in the fleet's way; hands back what is in doubt. `named` is how the
/// fleet file is called.
///
/// # Errors
/// All problems at once, or what could not be read.
pub async fn examine(world: &World, spec: &FleetSpec, named: &str) -> anyhow::Result<Vec<String>> {
    let facts = look(world, spec).await?;
    let Findings { problems, doubts } = verdict(spec, &facts)?;
    match problems.is_empty() {
        true => Ok(doubts),
        false => {
            let (document, path) = (Document::Fleet, named.to_owned());
            Err(ConfigError::Problems { document, path, problems }.into())
        }
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
        assert_eq!(verdict(&spec("10.0.0.0/16", 8), &facts(&["b"])).unwrap(), Findings::default());
        // What may not be read is no problem.
        let unread = Facts { offered: None, ..facts(&[]) };
        assert_eq!(verdict(&spec("10.0.0.0/16", 8), &unread).unwrap(), Findings::default());
    }

    #[test]
    fn all_that_stands_in_the_way_is_named_with_its_place() {
        let said = |cidr, max, p5: &[&str]| -> Vec<String> {
            let problems = verdict(&spec(cidr, max), &facts(p5)).unwrap().problems;
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
    fn quotas_that_nobody_can_be_asked_for_are_a_doubt() {
        let unasked = Some("could not list the quotas of `ec2`: no answer".to_owned());
        let quotas = QuotaFacts { unasked, ..QuotaFacts::default() };
        let found = verdict(&spec("10.0.0.0/16", 8), &Facts { quotas, ..facts(&["b"]) }).unwrap();
        assert_eq!(found.problems, Vec::<Problem>::new());
        let said = "whether the account's quotas suffice is not known: could not list the quotas of \
                    `ec2`: no answer";
        assert_eq!(found.doubts, [said]);
    }

    #[test]
    fn a_region_with_too_few_zones_is_refused() {
        let few = Facts { zones: facts(&[]).zones[..1].to_vec(), ..Facts::default() };
        assert!(verdict(&spec("10.0.0.0/16", 8), &few).is_err());
    }

    #[test]
    fn a_channel_without_an_image_that_fits_is_named() {
        let mut spec = spec("10.0.0.0/16", 8);
        spec.pools[1].image = ImageSource::Channel("stable".into());
        let mut facts = facts(&["a"]);
        facts.types.insert("p5.48xlarge".into(), TypeFacts::example());
        let said = |facts: &Facts| -> Vec<String> {
            let found = verdict(&spec, facts).unwrap().problems;
            found.iter().map(ToString::to_string).collect()
        };
        let none = "pools[1].image.channel: pool `h100`: no image is in the channel `stable`";
        assert_eq!(said(&facts), [none]);
        let image = Image::example("ami-1").promoted("stable", "2026-11-20T00:00:00Z");
        let newer = Image { kubernetes: Some("1.35".into()), ..image.clone() };
        facts.images.insert("ami-1".into(), newer);
        assert!(said(&facts)[0].contains("and the cluster 1.34: kubelet is never newer"));
        facts.images.insert("ami-1".into(), image);
        assert_eq!(said(&facts), [""; 0]);
    }

    #[test]
    fn an_image_that_would_not_boot_is_named() {
        let mut spec = spec("10.0.0.0/16", 8);
        spec.pools[1].image = ImageSource::Named("ami-0123456789abcdef0".into());
        let image = |state: &str, architecture: &str, gib| Image {
            id: "ami-0123456789abcdef0".into(),
            state: state.into(),
            architecture: architecture.into(),
            gib,
            ..Image::default()
        };
        for (image, said) in [
            (Some(image("available", "x86_64", 20)), None),
            (None, Some("pools[1].image: there is no image `ami-0123456789abcdef0`")),
            (
                Some(image("disabled", "x86_64", 20)),
                Some("pools[1].image: `ami-0123456789abcdef0` is"),
            ),
            (
                Some(image("available", "arm64", 20)),
                Some("is for arm64, and `p5.48xlarge` is x86_64"),
            ),
            (Some(image("available", "x86_64", 500)), Some("pools[1].volumeGiB: 200 is less than")),
        ] {
            let mut facts = facts(&["a"]);
            facts.types.insert("p5.48xlarge".into(), TypeFacts::example());
            facts.images =
                image.into_iter().map(|image| ("ami-0123456789abcdef0".into(), image)).collect();
            let found = verdict(&spec, &facts).unwrap().problems;
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            match said {
                Some(said) => assert!(found.len() == 1 && found[0].contains(said), "{found:?}"),
                None => assert_eq!(found, Vec::<String>::new()),
            }
        }
    }
}
