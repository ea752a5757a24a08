//! The network, from what was typed to what is meant. Pure.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::config::cidr::Cidr;
use crate::config::raw::{RawExisting, RawNetwork};
use crate::config::resolve::Judge;

const CIDR: &str = "10.0.0.0/16";
const ZONES: u64 = 2;

/// The network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum NetworkSpec {
    /// The fleet's own: made by `up`, removed by `down`.
    Own(OwnNetwork),
    /// One that is there already: read, never changed beyond a tag, never removed.
    Existing(ExistingNetwork),
}

/// A network of the fleet's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OwnNetwork {
    /// Addresses of the VPC.
    pub cidr: Cidr,
    /// Its zones.
    pub zones: Zones,
    /// NAT gateways.
    pub nat: Nat,
    /// VPC endpoints.
    pub endpoints: Endpoints,
}

/// A network that is there already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExistingNetwork {
    /// Id of the VPC.
    pub vpc: String,
    /// Ids of the nodes' subnets.
    pub private_subnets: Vec<String>,
    /// Ids of the subnets of load balancers that face the internet.
    pub public_subnets: Vec<String>,
}

/// Which zones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Zones {
    /// So many, the first by name.
    First(usize),
    /// These, by id: `use1-az4` is the same place in every account, `us-east-1a` is not.
    Ids(Vec<String>),
}

impl Zones {
    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::First(count) => *count,
            Self::Ids(ids) => ids.len(),
        }
    }
}

/// How many NAT gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nat {
    /// One for all zones: cheaper.
    One,
    /// One in each zone: no zone depends on another.
    PerZone,
    /// None, nor an internet gateway: nothing leaves the VPC but through endpoints.
    None,
}

/// Which VPC endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Endpoints {
    /// None.
    None,
    /// S3's gateway, which costs nothing.
    S3,
    /// All that a node needs to join without the internet.
    All,
}

pub(crate) fn resolve(judge: &mut Judge, raw: &RawNetwork) -> Option<NetworkSpec> {
    match &raw.existing {
        Some(existing) => {
            nothing_beside_existing(judge, raw);
            resolve_existing(judge, existing).map(NetworkSpec::Existing)
        }
        None => resolve_own(judge, raw).map(NetworkSpec::Own),
    }
}

fn nothing_beside_existing(judge: &mut Judge, raw: &RawNetwork) {
    let typed = [
        ("cidr", raw.cidr.is_some()),
        ("zones", raw.zones.is_some()),
        ("zoneIds", raw.zone_ids.is_some()),
        ("nat", raw.nat.is_some()),
        ("endpoints", raw.endpoints.is_some()),
    ];
    for (field, _) in typed.iter().filter(|(_, typed)| *typed) {
        let message = "does not go with `network.existing`, which is left as it is";
        judge.say(format!("network.{field}"), message);
    }
}

fn resolve_existing(judge: &mut Judge, raw: &RawExisting) -> Option<ExistingNetwork> {
    let path = "network.existing";
    if let Some(vpc) = &raw.vpc {
        check_id(judge, &format!("{path}.vpc"), vpc, "vpc-");
    }
    let mut seen = BTreeSet::new();
    let mut subnets = |field: &str, typed: &Option<Vec<Option<String>>>| {
        let mut ids = Vec::new();
        for (index, id) in typed.iter().flatten().enumerate() {
            let Some(id) = id else { continue };
            let at = format!("{path}.{field}[{index}]");
            check_id(judge, &at, id, "subnet-");
            if !seen.insert(id.clone()) {
                judge.say(at, format!("`{id}` is there twice"));
            }
            ids.push(id.clone());
        }
        ids
    };
    let private_subnets = subnets("privateSubnets", &raw.private_subnets);
    let public_subnets = subnets("publicSubnets", &raw.public_subnets);
    let named = raw.private_subnets.as_ref()?;
    if named.len() < 2 {
        judge.say(format!("{path}.privateSubnets"), "must be 2 at least (EKS needs two zones)");
    }
    Some(ExistingNetwork { vpc: raw.vpc.clone()?, private_subnets, public_subnets })
}

/// `vpc-0123456789abcdef0` and its like.
pub(crate) fn check_id(judge: &mut Judge, path: &str, id: &str, prefix: &str) {
    let number = id.strip_prefix(prefix).unwrap_or_default();
    if number.len() < 8 || !number.chars().all(|c| c.is_ascii_hexdigit()) {
        judge.say(path, format!("`{id}` is not of the form `{prefix}0123456789abcdef0`"));
    }
}

fn resolve_own(judge: &mut Judge, raw: &RawNetwork) -> Option<OwnNetwork> {
    let zones = zones(judge, raw);
    let nat = match raw.nat.as_deref() {
        Some("per-zone") => Nat::PerZone,
        Some("none") => Nat::None,
        _ => Nat::One,
    };
    let endpoints = match (raw.endpoints.as_deref(), nat) {
        (Some("all"), _) | (None, Nat::None) => Endpoints::All,
        (Some("s3"), _) => Endpoints::S3,
        _ => Endpoints::None,
    };
    if nat == Nat::None && endpoints != Endpoints::All {
        let message =
            "must be `all` with `nat: none`: nodes would reach nothing that they join with";
        judge.say("network.endpoints", message);
    }
    let cidr = cidr(judge, raw.cidr.as_deref().unwrap_or(CIDR))?;
    Some(OwnNetwork { cidr, zones: zones?, nat, endpoints })
}

fn zones(judge: &mut Judge, raw: &RawNetwork) -> Option<Zones> {
    let (path, count) = match &raw.zone_ids {
        Some(ids) => ("network.zoneIds", ids.len().try_into().unwrap_or(u64::MAX)),
        None => ("network.zones", raw.zones.unwrap_or(ZONES)),
    };
    if !(2..=6).contains(&count) {
        judge.say(path, format!("must be 2 to 6 (EKS needs two), is {count}"));
    }
    let Some(typed) = &raw.zone_ids else {
        return Some(Zones::First(usize::try_from(count).ok()?));
    };
    if raw.zones.is_some() {
        judge.say("network.zones", "does not go with `network.zoneIds`, which says how many");
    }
    let mut ids: Vec<String> = Vec::new();
    for (index, id) in typed.iter().enumerate() {
        let Some(id) = id else { continue };
        let at = format!("network.zoneIds[{index}]");
        if !is_zone_id(id) {
            judge.say(at, format!("`{id}` is not of the form `use1-az4`"));
        } else if ids.contains(id) {
            judge.say(at, format!("`{id}` is there twice"));
        }
        ids.push(id.clone());
    }
    Some(Zones::Ids(ids))
}

/// `use1-az4`.
pub(crate) fn is_zone_id(word: &str) -> bool {
    let Some((region, number)) = word.split_once("-az") else { return false };
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    !region.is_empty()
        && region.chars().all(plain)
        && !number.is_empty()
        && number.chars().all(|c| c.is_ascii_digit())
}

fn cidr(judge: &mut Judge, text: &str) -> Option<Cidr> {
    let cidr = match text.parse::<Cidr>() {
        Ok(cidr) => cidr,
        Err(error) => {
            judge.say("network.cidr", format!("`{text}` {error}"));
            return None;
        }
    };
    // AWS takes /16 to /28; below /20 the subnets would hold no fleet.
    if !(16..=20).contains(&cidr.prefix()) {
        judge.say("network.cidr", format!("`{text}` must have a prefix of 16 to 20"));
    }
    if !cidr.is_private() {
        judge.say("network.cidr", format!("`{text}` is no private network (RFC 1918)"));
    }
    Some(cidr)
}
