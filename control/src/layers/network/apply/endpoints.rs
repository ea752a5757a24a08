//! VPC endpoints. EC2 takes one such call every three seconds: the SDK's retries and the client's own
//! limit spread them.

use std::time::Duration;

use aws_sdk_ec2::types::{ResourceType, VpcEndpointType};
use contract::StepOutcome;

use super::{Applied, Ids, Result, must};
use crate::aws::ec2::tagged;
use crate::aws::error::gone;
use crate::aws::poll::{Waited, until};
use crate::aws::{Attempted as _, AwsError};
use crate::layers::names::spec_hash;
use crate::layers::network::desired::{EndpointKind, EndpointWish};
use crate::layers::network::observe::{EndpointFact, NetworkFacts, endpoints};
use crate::layers::network::plan::Tags;
use crate::stack::World;

/// An endpoint's interfaces go within a minute or two.
const DELETE_DEADLINE: Duration = Duration::from_secs(600);

pub(super) async fn create(
    world: &World,
    (wish, service): (&EndpointWish, &str),
    tags: &Tags,
    ids: &Ids<'_>,
) -> Result<Applied<NetworkFacts>> {
    let vpc = ids.vpc()?;
    let what = format!("create the VPC endpoint `{}`", wish.name);
    let call = world.clients.ec2.create_vpc_endpoint().vpc_id(vpc).service_name(service);
    let call = call.tag_specifications(tagged(ResourceType::VpcEndpoint, tags));
    // The VPC makes the token differ in the fleet's next life.
    let token = |reached: &[String]| {
        let parts = ["endpoint", &wish.name, vpc, &reached.join(",")];
        spec_hash(&parts)
    };
    let (call, subnets, tables) = match &wish.kind {
        EndpointKind::Gateway(names) => {
            let tables: Vec<String> =
                names.iter().map(|name| Ok(ids.table(name)?.id.clone())).collect::<Result<_>>()?;
            let call = call.vpc_endpoint_type(VpcEndpointType::Gateway);
            let call = call.set_route_table_ids(Some(tables.clone()));
            (call.client_token(token(&tables)), Vec::new(), tables)
        }
        EndpointKind::Interface { subnets, group } => {
            let subnets = offered(ids, wish, subnets)?;
            let call = call.vpc_endpoint_type(VpcEndpointType::Interface);
            // The services' usual names must lead to the endpoint: nobody configures nodes for it.
            let call = call.private_dns_enabled(true).security_group_ids(ids.group(group)?);
            let call = call.set_subnet_ids(Some(subnets.clone()));
            (call.client_token(token(&subnets)), subnets, Vec::new())
        }
    };
    let answer = call.send().await.attempted(|| what.clone())?;
    let id = answer.vpc_endpoint.and_then(|endpoint| endpoint.vpc_endpoint_id);
    let id = must(id, &what, "endpoint id")?;
    let (name, state) = (wish.name.clone(), "pending".to_owned());
    let fact = EndpointFact { id, name, state, subnets, tables };
    Ok(Applied::done(move |facts: &mut NetworkFacts| facts.endpoints.push(fact)))
}

/// Ids of the subnets in zones that offer the service.
fn offered(ids: &Ids<'_>, wish: &EndpointWish, names: &[String]) -> Result<Vec<String>> {
    let zones = ids.0.services.get(wish.service).map(|(_, zones)| zones);
    let mut found = Vec::new();
    for name in names {
        let id = ids.subnet(name)?;
        let zone = ids.0.subnets.iter().find(|subnet| subnet.id == id).map(|s| &s.zone.name);
        if zone.is_some_and(|zone| zones.is_none_or(|zones| zones.contains(zone))) {
            found.push(id.to_owned());
        }
    }
    Ok(found)
}

pub(super) async fn extend(
    world: &World,
    name: &str,
    (subnets, tables): (&[String], &[String]),
    ids: &Ids<'_>,
) -> Result<Applied<NetworkFacts>> {
    let call = world.clients.ec2.modify_vpc_endpoint().vpc_endpoint_id(ids.endpoint(name)?);
    let subnets: Vec<String> =
        subnets.iter().map(|name| Ok(ids.subnet(name)?.to_owned())).collect::<Result<_>>()?;
    let tables: Vec<String> =
        tables.iter().map(|name| Ok(ids.table(name)?.id.clone())).collect::<Result<_>>()?;
    let some = |ids: Vec<String>| (!ids.is_empty()).then_some(ids);
    let call = call.set_add_subnet_ids(some(subnets)).set_add_route_table_ids(some(tables));
    call.send().await.attempted(|| format!("extend the VPC endpoint `{name}`"))?;
    Ok(Applied::ended(StepOutcome::Done))
}

/// Removes endpoints and waits until their interfaces are gone: the subnets and the group lie under
/// them.
pub(super) async fn delete(world: &World, ids: &[String]) -> Result<Applied<NetworkFacts>> {
    let list = ids.join("`, `");
    let call = world.clients.ec2.delete_vpc_endpoints().set_vpc_endpoint_ids(Some(ids.to_vec()));
    let answer = call.send().await.attempted(|| format!("delete the VPC endpoints `{list}`"));
    // What could not be deleted stands in the answer; that it stays is seen below.
    gone(answer)?;
    let look = async || Ok(endpoints::are_gone(&world.clients, ids).await?.then_some(()));
    match until(world.pace, DELETE_DEADLINE, &world.interrupt, look).await? {
        Waited::Came(()) => Ok(Applied::ended(StepOutcome::Done)),
        Waited::TooLong => Err(AwsError::TimedOut {
            what: format!("the VPC endpoints `{list}`"),
            wanted: "gone",
            state: "deleting".into(),
            seconds: DELETE_DEADLINE.as_secs(),
        }
        .into()),
    }
}
