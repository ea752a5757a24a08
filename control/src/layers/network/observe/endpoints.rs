//! VPC endpoints, and the services that there are for them.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::VpcEndpoint;
use contract::names::TAG_FLEET;

use super::{by_id, text};
use crate::aws::ec2::{filter, name_of};
use crate::aws::{Attempted as _, AwsError, Clients};

/// A VPC endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointFact {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// `pending`, `available`, `failed`, …
    pub state: String,
    /// Its subnets, for an interface.
    pub subnets: Vec<String>,
    /// Its route tables, for a gateway.
    pub tables: Vec<String>,
}

impl EndpointFact {
    fn of(endpoint: &VpcEndpoint) -> Self {
        Self {
            id: text(endpoint.vpc_endpoint_id()),
            name: name_of(endpoint.tags()),
            // The API writes `available`, older regions `Available`.
            state: endpoint.state().map(|s| s.as_str().to_lowercase()).unwrap_or_default(),
            subnets: endpoint.subnet_ids().to_vec(),
            tables: endpoint.route_table_ids().to_vec(),
        }
    }

    /// Whether it is on its way out, or out.
    fn is_going(&self) -> bool {
        matches!(self.state.as_str(), "deleting" | "deleted")
    }
}

/// The endpoints that carry the fleet's tag and are not being deleted.
pub(in crate::layers::network) async fn observe(
    clients: &Clients,
    fleet: &str,
) -> Result<Vec<EndpointFact>, AwsError> {
    let call = clients.ec2.describe_vpc_endpoints();
    let call = call.filters(filter(&format!("tag:{TAG_FLEET}"), fleet));
    let found = call.into_paginator().items().send().try_collect().await;
    let found = found.attempted(|| format!("list the VPC endpoints of `{fleet}`"))?;
    let facts = found.iter().map(EndpointFact::of).filter(|fact| !fact.is_going());
    Ok(by_id(facts, |fact| &fact.id))
}

/// Whether none of these endpoints is there any more.
pub(in crate::layers::network) async fn are_gone(
    clients: &Clients,
    ids: &[String],
) -> Result<bool, AwsError> {
    // By filter: an id that is not known any more would be refused.
    let wanted = aws_sdk_ec2::types::Filter::builder().name("vpc-endpoint-id");
    let wanted = wanted.set_values(Some(ids.to_vec())).build();
    let found = clients.ec2.describe_vpc_endpoints().filters(wanted);
    let found = found.into_paginator().items().send().try_collect().await;
    let found = found.attempted(|| format!("describe the VPC endpoints `{}`", ids.join("`, `")))?;
    Ok(found.iter().all(|endpoint| EndpointFact::of(endpoint).state == "deleted"))
}

/// The names of AWS's own services in this region, by their short ones (`ecr.api`), and the zones
/// that offer an interface. The long names differ between partitions, some even within one.
pub(super) async fn services(
    clients: &Clients,
) -> Result<BTreeMap<String, (String, Vec<String>)>, AwsError> {
    let middle = format!(".{}.", clients.region);
    let mut services = BTreeMap::new();
    let mut token = None;
    loop {
        let call = clients.ec2.describe_vpc_endpoint_services().max_results(1000);
        let answer = call.set_next_token(token).send().await;
        let answer = answer.attempted(|| "list the services with VPC endpoints".to_owned())?;
        for detail in answer.service_details() {
            let Some(name) = detail.service_name() else { continue };
            // `com.amazonaws.us-east-1.ecr.api`; what somebody offers has `vpce` in front.
            let Some((front, short)) = name.split_once(&middle) else { continue };
            if !front.contains("vpce") {
                let zones = detail.availability_zones().to_vec();
                services.insert(short.to_owned(), (name.to_owned(), zones));
            }
        }
        token = answer.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(services);
        }
    }
}
