//! The network as it is, found by the fleet's tag; a network that is there already, by the ids that
//! the file names.

pub mod endpoints;
pub mod existing;
pub mod groups;
mod ways_out;

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{Filter, Subnet, Tag};
use contract::names::TAG_FLEET;

use crate::aws::ec2::{filter, name_of};
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::config::network::NetworkSpec;
use crate::layers::network::desired;
use crate::stack::world::Zone;
use crate::stack::{Inputs, StackError, World};

pub use endpoints::EndpointFact;
pub use existing::ExistingFacts;
pub use groups::{InterfaceFact, SecurityGroupFact};
pub(super) use ways_out::addresses;
use ways_out::nats;

/// Destination of a default route.
pub const EVERYWHERE: &str = "0.0.0.0/0";

/// The network as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkFacts {
    /// Zones of the region that are available, sorted.
    pub zones: Vec<Zone>,
    /// The network that the file names, where it is there already.
    pub existing: Option<ExistingFacts>,
    /// Ids of subnets of others that carry the cluster's tag; read on the way down, and where the
    /// network is there already.
    pub shared: Vec<String>,
    /// The VPC.
    pub vpc: Option<VpcFact>,
    /// The internet gateway.
    pub gateway: Option<GatewayFact>,
    /// The subnets.
    pub subnets: Vec<SubnetFact>,
    /// The elastic addresses.
    pub addresses: Vec<AddressFact>,
    /// The NAT gateways that are not deleted.
    pub nats: Vec<NatFact>,
    /// The route tables.
    pub tables: Vec<TableFact>,
    /// Seconds of what should be there once: an SDK's retry of a lost answer makes them.
    pub surplus: Vec<Surplus>,
    /// Tags of everything above, by id.
    pub tags: BTreeMap<String, BTreeMap<String, String>>,
    /// Network interfaces in the VPC, whoever made them; the cluster's, where the VPC is not ours.
    pub interfaces: Vec<InterfaceFact>,
    /// Security groups in the VPC but its default one, whoever made them; the fleet's, where the VPC
    /// is not ours.
    pub security_groups: Vec<SecurityGroupFact>,
    /// VPC endpoints that are not being deleted.
    pub endpoints: Vec<EndpointFact>,
    /// The services that endpoints can be made for, where the file asks for any: their name here and
    /// their zones.
    pub services: BTreeMap<String, (String, Vec<String>)>,
}

/// A VPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VpcFact {
    /// Id.
    pub id: String,
    /// Addresses.
    pub cidr: String,
    /// Whether its resolver answers.
    pub dns_support: bool,
    /// Whether its instances have DNS names.
    pub dns_hostnames: bool,
}

/// An internet gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayFact {
    /// Id.
    pub id: String,
    /// The VPC that it is attached to.
    pub vpc: Option<String>,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetFact {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Zone.
    pub zone: Zone,
    /// Addresses.
    pub cidr: String,
    /// Free addresses.
    pub free: u32,
    /// Whether it is one of the public ones.
    pub public: bool,
}

/// An elastic address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressFact {
    /// Allocation id.
    pub id: String,
    /// Name.
    pub name: String,
}

/// A NAT gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatFact {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// `pending`, `available`, `deleting`, `failed`.
    pub state: String,
}

/// A route table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFact {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Where the default route leads: a gateway's id.
    pub way_out: Option<String>,
    /// Whether the default route leads nowhere any more.
    pub blackhole: bool,
    /// Associations: their id and the subnet's.
    pub associations: Vec<(String, String)>,
}

/// Something that is there once too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Surplus {
    /// A VPC.
    Vpc(String),
    /// An internet gateway.
    Gateway(GatewayFact),
    /// A subnet.
    Subnet(String),
    /// An address.
    Address(String),
    /// A NAT gateway.
    Nat(String),
    /// A route table.
    Table(TableFact),
}

/// Reads the whole network.
///
/// # Errors
/// [`StackError::Aws`] when EC2 does not answer or refuses.
pub async fn observe(world: &World, inputs: Option<&Inputs>) -> Result<NetworkFacts, StackError> {
    let (clients, fleet) = (&world.clients, world.scope.fleet.as_str());
    let owned = filter(&format!("tag:{TAG_FLEET}"), fleet);
    let (zones, vpcs, gateways, subnets, addresses, nats, tables) = tokio::try_join!(
        zones(clients),
        vpcs(clients, fleet, &owned),
        gateways(clients, fleet, &owned),
        subnets(clients, fleet, &owned),
        addresses(clients, fleet, &owned),
        nats(clients, fleet, &owned),
        tables(clients, fleet, &owned),
    )?;
    let mut facts = NetworkFacts { zones, ..NetworkFacts::default() };
    let mut vpcs = vpcs.into_iter();
    facts.vpc = vpcs.next();
    facts.surplus.extend(vpcs.map(|vpc| Surplus::Vpc(vpc.id)));
    if let Some(id) = facts.vpc.as_ref().map(|vpc| vpc.id.clone()) {
        match (dns(clients, &id).await?, &mut facts.vpc) {
            (Some((support, hostnames)), Some(vpc)) => {
                (vpc.dns_support, vpc.dns_hostnames) = (support, hostnames);
            }
            // The list was from before it was deleted.
            (None, vpc) => *vpc = None,
            (Some(_), None) => {}
        }
    }
    observe_guests(world, inputs, &mut facts).await?;
    let mut gateways = gateways.into_iter();
    facts.gateway = gateways.next();
    facts.surplus.extend(gateways.map(Surplus::Gateway));
    let (subnets, twice) = once(subnets, |s| s.name.clone());
    facts.subnets = subnets;
    facts.surplus.extend(twice.into_iter().map(|s| Surplus::Subnet(s.id)));
    let (addresses, twice) = once(addresses, |a| a.name.clone());
    facts.addresses = addresses;
    facts.surplus.extend(twice.into_iter().map(|a| Surplus::Address(a.id)));
    let (nats, twice) = once(nats, |n| n.name.clone());
    facts.nats = nats;
    facts.surplus.extend(twice.into_iter().map(|n| Surplus::Nat(n.id)));
    let (tables, twice) = once(tables, |t| t.name.clone());
    facts.tables = tables;
    facts.surplus.extend(twice.into_iter().map(Surplus::Table));
    facts.tags = tags(clients, fleet, &facts.ids()).await?;
    Ok(facts)
}

/// Reads what stands in the network, and the network itself where it is not the fleet's.
async fn observe_guests(
    world: &World,
    inputs: Option<&Inputs>,
    facts: &mut NetworkFacts,
) -> Result<(), StackError> {
    let (clients, fleet) = (&world.clients, world.scope.fleet.as_str());
    let spec = inputs.map(|inputs| &inputs.spec.network);
    if let Some(NetworkSpec::Existing(named)) = spec {
        facts.existing = Some(existing::observe(clients, named).await?);
    }
    if let Some(vpc) = &facts.vpc {
        (facts.interfaces, facts.security_groups) = tokio::try_join!(
            groups::interfaces_in(clients, &vpc.id),
            groups::security_groups_in(clients, &vpc.id, fleet),
        )?;
    } else if !matches!(spec, Some(NetworkSpec::Own(_))) {
        facts.security_groups = groups::security_groups_of(clients, fleet).await?;
        facts.shared = existing::shared(clients, fleet).await?;
        // Without our mark, a cluster of this name is somebody else's.
        if !facts.shared.is_empty() {
            facts.interfaces = groups::interfaces_of(clients, fleet).await?;
        }
    }
    facts.endpoints = endpoints::observe(clients, fleet).await?;
    if spec.is_some_and(desired::wants_endpoints) {
        facts.services = endpoints::services(clients).await?;
    }
    Ok(())
}

impl NetworkFacts {
    /// Ids of everything that carries the fleet's tags.
    fn ids(&self) -> Vec<String> {
        let mut ids: Vec<&String> = self.vpc.iter().map(|vpc| &vpc.id).collect();
        ids.extend(self.gateway.iter().map(|gateway| &gateway.id));
        ids.extend(self.subnets.iter().map(|subnet| &subnet.id));
        ids.extend(self.addresses.iter().map(|address| &address.id));
        ids.extend(self.nats.iter().map(|nat| &nat.id));
        ids.extend(self.tables.iter().map(|table| &table.id));
        ids.extend(self.endpoints.iter().map(|endpoint| &endpoint.id));
        let groups = self.security_groups.iter().filter(|group| group.ours);
        ids.extend(groups.map(|group| &group.id));
        ids.into_iter().cloned().collect()
    }
}

/// Values of one filter that EC2 takes (EC2 API reference, Filter).
const FILTER_VALUES: usize = 200;

async fn tags(
    clients: &Clients,
    fleet: &str,
    ids: &[String],
) -> Result<BTreeMap<String, BTreeMap<String, String>>, AwsError> {
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for some in ids.chunks(FILTER_VALUES) {
        let filter = Filter::builder().name("resource-id").set_values(Some(some.to_vec())).build();
        let pages = clients.ec2.describe_tags().filters(filter).into_paginator().items().send();
        let tags = pages.try_collect().await.attempted(|| format!("list the tags of `{fleet}`"))?;
        for tag in tags {
            let one = found.entry(text(tag.resource_id())).or_default();
            one.insert(text(tag.key()), text(tag.value()));
        }
    }
    Ok(found)
}

/// The first of each name, and the others. Ids are sorted, so that every run keeps the same one.
fn once<T>(items: Vec<T>, name: impl Fn(&T) -> String) -> (Vec<T>, Vec<T>) {
    let mut seen = std::collections::BTreeSet::new();
    items.into_iter().partition(|item| seen.insert(name(item)))
}

fn text(value: Option<&str>) -> String {
    value.unwrap_or_default().to_owned()
}

/// The zones of the region that are available, sorted.
///
/// # Errors
/// When EC2 does not answer.
pub async fn zones(clients: &Clients) -> Result<Vec<Zone>, AwsError> {
    let answer = clients
        .ec2
        .describe_availability_zones()
        .filters(filter("zone-type", "availability-zone"))
        .filters(filter("state", "available"))
        .send()
        .await
        .attempted(|| format!("list the zones of `{}`", clients.region))?;
    let zones = answer.availability_zones().iter();
    let mut zones: Vec<Zone> =
        zones.map(|zone| Zone { name: text(zone.zone_name()), id: text(zone.zone_id()) }).collect();
    zones.sort();
    Ok(zones)
}

pub(super) async fn vpcs(
    clients: &Clients,
    fleet: &str,
    owned: &Filter,
) -> Result<Vec<VpcFact>, AwsError> {
    let pages = clients.ec2.describe_vpcs().filters(owned.clone()).into_paginator().items().send();
    let vpcs = pages.try_collect().await.attempted(|| format!("list the VPCs of `{fleet}`"))?;
    let vpcs = vpcs.into_iter().map(|vpc| VpcFact {
        id: text(vpc.vpc_id()),
        cidr: text(vpc.cidr_block()),
        dns_support: false,
        dns_hostnames: false,
    });
    Ok(by_id(vpcs, |vpc| &vpc.id))
}

fn by_id<T>(items: impl Iterator<Item = T>, id: impl Fn(&T) -> &str) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_by(|a, b| id(a).cmp(id(b)));
    items
}

/// Whether the VPC's resolver and its DNS names are on; none when it does not exist any more.
async fn dns(clients: &Clients, vpc: &str) -> Result<Option<(bool, bool)>, AwsError> {
    use aws_sdk_ec2::types::VpcAttributeName::{EnableDnsHostnames, EnableDnsSupport};
    let mut answers = [false; 2];
    for (slot, attribute) in answers.iter_mut().zip([EnableDnsSupport, EnableDnsHostnames]) {
        let answer = clients
            .ec2
            .describe_vpc_attribute()
            .vpc_id(vpc)
            .attribute(attribute)
            .send()
            .await
            .attempted(|| format!("read the DNS settings of the VPC `{vpc}`"));
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let setting = answer.enable_dns_support().or(answer.enable_dns_hostnames());
        *slot = setting.and_then(|value| value.value()).unwrap_or(false);
    }
    Ok(Some((answers[0], answers[1])))
}

pub(super) async fn gateways(
    clients: &Clients,
    fleet: &str,
    owned: &Filter,
) -> Result<Vec<GatewayFact>, AwsError> {
    let pages = clients.ec2.describe_internet_gateways().filters(owned.clone());
    let gateways = pages.into_paginator().items().send().try_collect().await;
    let gateways = gateways.attempted(|| format!("list the internet gateways of `{fleet}`"))?;
    let gateways = gateways.into_iter().map(|gateway| GatewayFact {
        id: text(gateway.internet_gateway_id()),
        vpc: gateway.attachments().first().and_then(|a| a.vpc_id()).map(str::to_owned),
    });
    Ok(by_id(gateways, |gateway| &gateway.id))
}

pub(super) async fn subnets(
    clients: &Clients,
    fleet: &str,
    owned: &Filter,
) -> Result<Vec<SubnetFact>, AwsError> {
    let pages = clients.ec2.describe_subnets().filters(owned.clone());
    let subnets = pages.into_paginator().items().send().try_collect().await;
    let subnets = subnets.attempted(|| format!("list the subnets of `{fleet}`"))?;
    let public = |tags: &[Tag]| tags.iter().any(|t| t.key() == Some("kubernetes.io/role/elb"));
    let subnets = subnets.into_iter().map(|subnet| SubnetFact {
        id: text(subnet.subnet_id()),
        name: name_of(subnet.tags()),
        zone: zone_of(&subnet),
        cidr: text(subnet.cidr_block()),
        free: subnet.available_ip_address_count().unwrap_or(0).unsigned_abs(),
        public: public(subnet.tags()),
    });
    Ok(by_id(subnets, |subnet| &subnet.id))
}

fn zone_of(subnet: &Subnet) -> Zone {
    Zone { name: text(subnet.availability_zone()), id: text(subnet.availability_zone_id()) }
}

pub(super) async fn tables(
    clients: &Clients,
    fleet: &str,
    owned: &Filter,
) -> Result<Vec<TableFact>, AwsError> {
    let pages = clients.ec2.describe_route_tables().filters(owned.clone());
    let tables = pages.into_paginator().items().send().try_collect().await;
    let tables = tables.attempted(|| format!("list the route tables of `{fleet}`"))?;
    let tables = tables.into_iter().map(|table| {
        let route = table.routes().iter().find(|r| r.destination_cidr_block() == Some(EVERYWHERE));
        let associations = table.associations().iter();
        TableFact {
            id: text(table.route_table_id()),
            name: name_of(table.tags()),
            way_out: route
                .and_then(|route| route.nat_gateway_id().or(route.gateway_id()))
                .map(str::to_owned),
            blackhole: route
                .and_then(|route| route.state())
                .is_some_and(|state| state.as_str() == "blackhole"),
            associations: associations
                .filter_map(|a| {
                    let id = a.route_table_association_id()?;
                    Some((id.to_owned(), a.subnet_id()?.to_owned()))
                })
                .collect(),
        }
    });
    Ok(by_id(tables, |table| &table.id))
}
