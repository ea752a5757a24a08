//! The network as it should be. Pure.

use std::collections::BTreeMap;

use crate::config::FleetSpec;
use crate::config::cidr::Cidr;
use crate::config::spec::Nat;
use crate::stack::StackError;

/// The network as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Name of the VPC.
    pub vpc: String,
    /// Its addresses.
    pub cidr: Cidr,
    /// Name of the internet gateway.
    pub gateway: String,
    /// The subnets, zone by zone.
    pub subnets: Vec<SubnetWish>,
    /// The NAT gateways.
    pub nats: Vec<NatWish>,
    /// The route tables.
    pub tables: Vec<TableWish>,
    /// The fleet file's own tags.
    pub tags: BTreeMap<String, String>,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetWish {
    /// Name.
    pub name: String,
    /// Availability zone.
    pub zone: String,
    /// Addresses.
    pub cidr: Cidr,
    /// Whether it faces the internet.
    pub public: bool,
}

/// A NAT gateway with an address of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatWish {
    /// Name, the address's as well.
    pub name: String,
    /// Name of the public subnet that it stands in.
    pub subnet: String,
}

/// A route table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableWish {
    /// Name.
    pub name: String,
    /// Where its default route leads.
    pub way_out: WayOut,
    /// Names of the subnets that use it.
    pub subnets: Vec<String>,
}

/// Where a default route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WayOut {
    /// The internet gateway.
    Internet,
    /// The NAT gateway of this name.
    Nat(String),
}

/// The network that a fleet file asks for, in the first of `zones`.
///
/// An eighth of the VPC's addresses goes to each private subnet; the last eighth is divided again
/// among the small public ones.
///
/// # Errors
/// [`StackError::Conflict`] when the region has fewer zones than are asked for.
pub fn desired(spec: &FleetSpec, zones: &[String]) -> Result<Desired, StackError> {
    let (fleet, network) = (&spec.name, &spec.network);
    if zones.len() < network.zones {
        return Err(StackError::Conflict {
            message: format!(
                "the fleet asks for {} zones and the region offers {}",
                network.zones,
                zones.len()
            ),
            hint: "lower `network.zones`, or choose another region".into(),
        });
    }
    let zones = &zones[..network.zones];
    let mut subnets = Vec::new();
    for (index, zone) in (0_u32..).zip(zones) {
        subnets.push(SubnetWish {
            name: format!("{fleet}-public-{zone}"),
            zone: zone.clone(),
            cidr: network.cidr.part(3, 7).part(3, index),
            public: true,
        });
        subnets.push(SubnetWish {
            name: format!("{fleet}-private-{zone}"),
            zone: zone.clone(),
            cidr: network.cidr.part(3, index),
            public: false,
        });
    }
    let nat_zones = match network.nat {
        Nat::One => &zones[..1],
        Nat::PerZone => zones,
    };
    let nats = nat_zones.iter().map(|zone| NatWish {
        name: format!("{fleet}-nat-{zone}"),
        subnet: format!("{fleet}-public-{zone}"),
    });
    Ok(Desired {
        vpc: fleet.clone(),
        cidr: network.cidr,
        gateway: fleet.clone(),
        nats: nats.collect(),
        tables: tables(fleet, zones, network.nat),
        subnets,
        tags: spec.tags.clone(),
    })
}

fn tables(fleet: &str, zones: &[String], nat: Nat) -> Vec<TableWish> {
    let private = |zone: &String| format!("{fleet}-private-{zone}");
    let mut tables = vec![TableWish {
        name: format!("{fleet}-public"),
        way_out: WayOut::Internet,
        subnets: zones.iter().map(|zone| format!("{fleet}-public-{zone}")).collect(),
    }];
    match nat {
        Nat::One => tables.push(TableWish {
            name: format!("{fleet}-private"),
            way_out: WayOut::Nat(format!("{fleet}-nat-{}", zones[0])),
            subnets: zones.iter().map(private).collect(),
        }),
        Nat::PerZone => tables.extend(zones.iter().map(|zone| TableWish {
            name: private(zone),
            way_out: WayOut::Nat(format!("{fleet}-nat-{zone}")),
            subnets: vec![private(zone)],
        })),
    }
    tables
}
