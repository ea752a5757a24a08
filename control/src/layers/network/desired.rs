//! The network as it should be. Pure.

use std::collections::BTreeMap;

use crate::config::FleetSpec;
use crate::config::cidr::Cidr;
use crate::config::network::{Endpoints, ExistingNetwork, Nat, NetworkSpec, OwnNetwork, Zones};
use crate::stack::StackError;
use crate::stack::world::Zone;

/// What a node asks of AWS before and after it joins, beside S3 (`docs.aws.amazon.com/eks`, "Deploy
/// private clusters with limited internet access"; SSM's three are the agent's reports and sessions).
pub const INTERFACE_SERVICES: [&str; 10] = [
    "ec2",
    "ecr.api",
    "ecr.dkr",
    "sts",
    "ssm",
    "ssmmessages",
    "ec2messages",
    "eks",
    "eks-auth",
    "logs",
];
/// S3, where ECR keeps its layers and the fleet its agent: a gateway costs nothing.
pub const GATEWAY_SERVICE: &str = "s3";

/// The network as it should be: the fleet's own, or what it needs in one that is there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The fleet's own.
    Own(Desired),
    /// One that is there already.
    Existing(Adopted),
}

/// What a fleet needs of and in a network that is there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// Name of the fleet.
    pub fleet: String,
    /// What the file names.
    pub network: ExistingNetwork,
    /// Security groups, the only things that are made in it.
    pub groups: Vec<GroupWish>,
    /// The fleet file's own tags.
    pub tags: BTreeMap<String, String>,
}

/// The network as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Name of the VPC.
    pub vpc: String,
    /// Its addresses.
    pub cidr: Cidr,
    /// Name of the internet gateway; none: nothing leads out.
    pub gateway: Option<String>,
    /// The subnets, zone by zone.
    pub subnets: Vec<SubnetWish>,
    /// The NAT gateways.
    pub nats: Vec<NatWish>,
    /// The route tables.
    pub tables: Vec<TableWish>,
    /// The security groups.
    pub groups: Vec<GroupWish>,
    /// The VPC endpoints.
    pub endpoints: Vec<EndpointWish>,
    /// The fleet file's own tags.
    pub tags: BTreeMap<String, String>,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetWish {
    /// Name.
    pub name: String,
    /// Availability zone.
    pub zone: Zone,
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
    /// Where its default route leads; none: it has none.
    pub way_out: Option<WayOut>,
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

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupWish {
    /// Name.
    pub name: String,
    /// What it is for, as EC2's description, which cannot be changed.
    pub about: &'static str,
    /// What it lets through, beside all that a new group lets out.
    pub rules: Vec<Rule>,
}

/// What a security group lets through.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// HTTPS from these addresses.
    HttpsFrom(String),
    /// Everything that comes from the group itself.
    FromItself,
    /// Everything that goes to the group itself. A rule that lets everything out by address does not
    /// count for EFA (`docs.aws.amazon.com/AWSEC2`, "Get started with EFA").
    ToItself,
}

impl Rule {
    /// The rule in words.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::HttpsFrom(cidr) => format!("https from {cidr}"),
            Self::FromItself => "all from itself".to_owned(),
            Self::ToItself => "all to itself".to_owned(),
        }
    }
}

/// A VPC endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointWish {
    /// Name.
    pub name: String,
    /// The service, `ecr.api`.
    pub service: &'static str,
    /// How it is reached.
    pub kind: EndpointKind,
}

/// How a service is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    /// By a route in the tables of these names.
    Gateway(Vec<String>),
    /// By an interface in the subnets of these names, behind the group of that name.
    Interface {
        /// The subnets, one a zone.
        subnets: Vec<String>,
        /// The security group.
        group: String,
    },
}

/// Whether a network has VPC endpoints of the fleet's.
#[must_use]
pub const fn wants_endpoints(network: &NetworkSpec) -> bool {
    match network {
        NetworkSpec::Own(own) => !matches!(own.endpoints, Endpoints::None),
        NetworkSpec::Existing(_) => false,
    }
}

/// Name of the security group that EFA needs.
#[must_use]
pub fn efa_group(fleet: &str) -> String {
    format!("{fleet}-efa")
}

/// The network that a fleet file asks for; `zones` are the region's.
///
/// # Errors
/// [`StackError::Conflict`] when the region has fewer zones than are asked for, or others.
pub fn wish(spec: &FleetSpec, zones: &[Zone]) -> Result<Wish, StackError> {
    let efa = spec.pools.iter().any(|pool| pool.efa).then(|| GroupWish {
        name: efa_group(&spec.name),
        about: "EFA between the nodes of a fleet",
        rules: vec![Rule::FromItself, Rule::ToItself],
    });
    match &spec.network {
        NetworkSpec::Own(network) => own(spec, network, zones, efa).map(Wish::Own),
        NetworkSpec::Existing(network) => Ok(Wish::Existing(Adopted {
            fleet: spec.name.clone(),
            network: network.clone(),
            groups: efa.into_iter().collect(),
            tags: spec.tags.clone(),
        })),
    }
}

/// The zones of a network of the fleet's own.
///
/// # Errors
/// [`StackError::Conflict`] when the region does not have them.
pub fn chosen(network: &OwnNetwork, zones: &[Zone]) -> Result<Vec<Zone>, StackError> {
    let conflict =
        |message: String, hint: &str| StackError::Conflict { message, hint: hint.into() };
    match &network.zones {
        Zones::First(count) if zones.len() < *count => {
            let offered = zones.len();
            let message =
                format!("the fleet asks for {count} zones and the region offers {offered}");
            Err(conflict(message, "lower `network.zones`, or choose another region"))
        }
        Zones::First(count) => Ok(zones[..*count].to_vec()),
        Zones::Ids(ids) => {
            let find = |id: &String| {
                zones.iter().find(|zone| zone.id == *id).cloned().ok_or_else(|| {
                    let there: Vec<&str> = zones.iter().map(|zone| zone.id.as_str()).collect();
                    let there = there.join(", ");
                    let message = format!("the region has no zone `{id}`; it has {there}");
                    conflict(message, "correct `network.zoneIds`")
                })
            };
            ids.iter().map(find).collect()
        }
    }
}

/// An eighth of the VPC's addresses goes to each private subnet; the last eighth is divided again
/// among the small public ones.
fn own(
    spec: &FleetSpec,
    network: &OwnNetwork,
    zones: &[Zone],
    efa: Option<GroupWish>,
) -> Result<Desired, StackError> {
    let fleet = &spec.name;
    let zones = chosen(network, zones)?;
    let open = network.nat != Nat::None;
    let mut subnets = Vec::new();
    for (index, zone) in (0_u32..).zip(&zones) {
        if open {
            subnets.push(SubnetWish {
                name: format!("{fleet}-public-{}", zone.name),
                zone: zone.clone(),
                cidr: network.cidr.part(3, 7).part(3, index),
                public: true,
            });
        }
        subnets.push(SubnetWish {
            name: format!("{fleet}-private-{}", zone.name),
            zone: zone.clone(),
            cidr: network.cidr.part(3, index),
            public: false,
        });
    }
    let nat_zones = match network.nat {
        Nat::One => &zones[..1],
        Nat::PerZone => &zones[..],
        Nat::None => &[],
    };
    let nats = nat_zones.iter().map(|zone| NatWish {
        name: format!("{fleet}-nat-{}", zone.name),
        subnet: format!("{fleet}-public-{}", zone.name),
    });
    let tables = tables(fleet, &zones, network.nat);
    let (groups, endpoints) = endpoints(fleet, network, &subnets, &tables);
    Ok(Desired {
        vpc: fleet.clone(),
        cidr: network.cidr,
        gateway: open.then(|| fleet.clone()),
        nats: nats.collect(),
        tables,
        subnets,
        groups: groups.into_iter().chain(efa).collect(),
        endpoints,
        tags: spec.tags.clone(),
    })
}

fn tables(fleet: &str, zones: &[Zone], nat: Nat) -> Vec<TableWish> {
    let private = |zone: &Zone| format!("{fleet}-private-{}", zone.name);
    let public = TableWish {
        name: format!("{fleet}-public"),
        way_out: Some(WayOut::Internet),
        subnets: zones.iter().map(|zone| format!("{fleet}-public-{}", zone.name)).collect(),
    };
    let shared = |way_out: Option<WayOut>| TableWish {
        name: format!("{fleet}-private"),
        way_out,
        subnets: zones.iter().map(private).collect(),
    };
    let nat_of = |zone: &Zone| WayOut::Nat(format!("{fleet}-nat-{}", zone.name));
    match nat {
        Nat::One => vec![public, shared(Some(nat_of(&zones[0])))],
        Nat::PerZone => {
            let each = zones.iter().map(|zone| TableWish {
                name: private(zone),
                way_out: Some(nat_of(zone)),
                subnets: vec![private(zone)],
            });
            std::iter::once(public).chain(each).collect()
        }
        Nat::None => vec![shared(None)],
    }
}

/// The endpoints, and the security group that the interface ones stand behind.
fn endpoints(
    fleet: &str,
    network: &OwnNetwork,
    subnets: &[SubnetWish],
    tables: &[TableWish],
) -> (Option<GroupWish>, Vec<EndpointWish>) {
    let named = |service: &'static str, kind: EndpointKind| EndpointWish {
        name: format!("{fleet}-{}", service.replace('.', "-")),
        service,
        kind,
    };
    let private = |subnet: &&SubnetWish| !subnet.public;
    let leads_out = |table: &&TableWish| table.way_out != Some(WayOut::Internet);
    let tables = tables.iter().filter(leads_out).map(|table| table.name.clone()).collect();
    let s3 = named(GATEWAY_SERVICE, EndpointKind::Gateway(tables));
    match network.endpoints {
        Endpoints::None => (None, Vec::new()),
        Endpoints::S3 => (None, vec![s3]),
        Endpoints::All => {
            let group = format!("{fleet}-endpoints");
            let behind = EndpointKind::Interface {
                subnets: subnets.iter().filter(private).map(|s| s.name.clone()).collect(),
                group: group.clone(),
            };
            let interfaces = INTERFACE_SERVICES.map(|service| named(service, behind.clone()));
            let group = GroupWish {
                name: group,
                about: "AWS services for the nodes of a fleet",
                rules: vec![Rule::HttpsFrom(network.cidr.to_string())],
            };
            (Some(group), std::iter::once(s3).chain(interfaces).collect())
        }
    }
}
