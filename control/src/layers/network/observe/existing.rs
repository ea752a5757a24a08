//! A network that is there already: what the file names of it, and which way its subnets lead.

use aws_sdk_ec2::types::{Filter, RouteTable};

use super::{EVERYWHERE, VpcFact, dns, text, zone_of};
use crate::aws::ec2::filter;
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::config::network::ExistingNetwork;
use crate::stack::world::Zone;

/// The value of [`cluster_tag`] on what a cluster uses and does not own.
pub const SHARED: &str = "shared";

/// Key of the tag by which Kubernetes knows a cluster's subnets.
#[must_use]
pub fn cluster_tag(fleet: &str) -> String {
    format!("kubernetes.io/cluster/{fleet}")
}

/// What is there of what the file names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExistingFacts {
    /// The VPC.
    pub vpc: Option<VpcFact>,
    /// The subnets.
    pub subnets: Vec<ExistingSubnet>,
    /// The services that have an endpoint in the VPC, whoever made it: `ecr.api`.
    pub endpoints: Vec<String>,
}

/// A subnet that is there already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExistingSubnet {
    /// Id.
    pub id: String,
    /// Its VPC.
    pub vpc: String,
    /// Zone.
    pub zone: Zone,
    /// Free addresses.
    pub free: u32,
    /// Where its default route leads: the id of a gateway, of an instance, of a VPC's peer.
    pub way_out: Option<String>,
    /// Whether its default route leads nowhere any more.
    pub blackhole: bool,
    /// Keys of its tags.
    pub tags: Vec<String>,
}

/// Reads what the file names.
///
/// # Errors
/// When EC2 does not answer or refuses.
pub async fn observe(
    clients: &Clients,
    named: &ExistingNetwork,
) -> Result<ExistingFacts, AwsError> {
    let id = named.vpc.as_str();
    let vpcs = clients.ec2.describe_vpcs().filters(filter("vpc-id", id));
    let vpcs = vpcs.into_paginator().items().send().try_collect().await;
    let vpcs = vpcs.attempted(|| format!("describe the VPC `{id}`"))?;
    let Some(vpc) = vpcs.first() else { return Ok(ExistingFacts::default()) };
    let Some((dns_support, dns_hostnames)) = dns(clients, id).await? else {
        return Ok(ExistingFacts::default());
    };
    let vpc =
        VpcFact { id: id.to_owned(), cidr: text(vpc.cidr_block()), dns_support, dns_hostnames };
    Ok(ExistingFacts {
        vpc: Some(vpc),
        subnets: subnets(clients, named).await?,
        endpoints: endpoints(clients, id).await?,
    })
}

async fn subnets(
    clients: &Clients,
    named: &ExistingNetwork,
) -> Result<Vec<ExistingSubnet>, AwsError> {
    let ids = [&named.private_subnets[..], &named.public_subnets[..]].concat();
    let wanted = Filter::builder().name("subnet-id").set_values(Some(ids)).build();
    let found = clients.ec2.describe_subnets().filters(wanted);
    let found = found.into_paginator().items().send().try_collect().await;
    let found = found.attempted(|| format!("describe the subnets of `{}`", named.vpc))?;
    let tables = clients.ec2.describe_route_tables().filters(filter("vpc-id", &named.vpc));
    let tables = tables.into_paginator().items().send().try_collect().await;
    let tables = tables.attempted(|| format!("list the route tables of `{}`", named.vpc))?;
    let facts = found.iter().map(|subnet| {
        let id = text(subnet.subnet_id());
        let (way_out, blackhole) = way_out(&tables, &id);
        ExistingSubnet {
            vpc: text(subnet.vpc_id()),
            zone: zone_of(subnet),
            free: subnet.available_ip_address_count().unwrap_or(0).unsigned_abs(),
            way_out,
            blackhole,
            tags: subnet.tags().iter().map(|tag| text(tag.key())).collect(),
            id,
        }
    });
    Ok(facts.collect())
}

/// Where a subnet's default route leads, by its own table or, without one, by the VPC's main table.
fn way_out(tables: &[RouteTable], subnet: &str) -> (Option<String>, bool) {
    let own = |table: &&RouteTable| {
        table.associations().iter().any(|one| one.subnet_id() == Some(subnet))
    };
    let main =
        |table: &&RouteTable| table.associations().iter().any(|one| one.main() == Some(true));
    let Some(table) = tables.iter().find(own).or_else(|| tables.iter().find(main)) else {
        return (None, false);
    };
    let route = table.routes().iter().find(|r| r.destination_cidr_block() == Some(EVERYWHERE));
    let Some(route) = route else { return (None, false) };
    let target = route
        .nat_gateway_id()
        .or(route.gateway_id())
        .or(route.transit_gateway_id())
        .or(route.vpc_peering_connection_id())
        .or(route.network_interface_id());
    let blackhole = route.state().is_some_and(|state| state.as_str() == "blackhole");
    (target.map(str::to_owned), blackhole)
}

async fn endpoints(clients: &Clients, vpc: &str) -> Result<Vec<String>, AwsError> {
    let found = clients.ec2.describe_vpc_endpoints().filters(filter("vpc-id", vpc));
    let found = found.into_paginator().items().send().try_collect().await;
    let found = found.attempted(|| format!("list the VPC endpoints of `{vpc}`"))?;
    let middle = format!(".{}.", clients.region);
    let there = found.iter().filter(|endpoint| {
        endpoint.state().is_some_and(|state| state.as_str().eq_ignore_ascii_case("available"))
    });
    let names = there.filter_map(|endpoint| endpoint.service_name()?.split_once(&middle));
    let mut names: Vec<String> = names.map(|(_, short)| short.to_owned()).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Ids of the subnets that carry the cluster's tag as shared ones: where `up` has put it.
pub(super) async fn shared(clients: &Clients, fleet: &str) -> Result<Vec<String>, AwsError> {
    let tag = format!("tag:{}", cluster_tag(fleet));
    let found = clients.ec2.describe_subnets().filters(filter(&tag, SHARED));
    let found = found.into_paginator().items().send().try_collect().await;
    let found = found.attempted(|| format!("list the subnets that `{fleet}` shares"))?;
    let mut ids: Vec<String> = found.iter().map(|subnet| text(subnet.subnet_id())).collect();
    ids.sort();
    Ok(ids)
}
