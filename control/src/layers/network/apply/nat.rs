//! Addresses and NAT gateways.

use std::time::Duration;

use aws_sdk_ec2::types::{DomainType, ResourceType};
use contract::StepOutcome;

use super::{Applied, Ids, Result, deletion, must, owned};
use crate::aws::adopt::adopt_or_create;
use crate::aws::ec2::tagged;
use crate::aws::error::gone;
use crate::aws::poll::{Waited, patiently, until};
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::layers::names::spec_hash;
use crate::layers::network::desired::NatWish;
use crate::layers::network::observe::{self, AddressFact, NatFact, NetworkFacts};
use crate::layers::network::plan::Tags;
use crate::stack::{StackError, World};

/// A NAT gateway takes a minute and a half; nobody has seen ten.
const NAT_DEADLINE: Duration = Duration::from_secs(600);

pub(super) async fn allocate(
    world: &World,
    name: &str,
    tags: &Tags,
) -> Result<Applied<NetworkFacts>> {
    let (clients, fleet) = (&world.clients, &world.scope.fleet);
    let what = format!("allocate the address `{name}`");
    let (id, outcome) = adopt_or_create(
        world.pace,
        async || {
            let addresses = observe::addresses(clients, fleet, &owned(world)).await?;
            Ok(addresses.into_iter().filter(|a| a.name == name).map(|a| a.id).collect())
        },
        async || {
            let call = clients.ec2.allocate_address().domain(DomainType::Vpc);
            let call = call.tag_specifications(tagged(ResourceType::ElasticIp, tags));
            let answer = call.send().await.attempted(|| what.clone())?;
            must(answer.allocation_id, &what, "allocation id")
        },
        async |id| {
            let call = clients.ec2.release_address().allocation_id(id).send().await;
            gone(call.attempted(|| format!("release the address `{id}`"))).map(drop)
        },
    )
    .await?;
    let fact = AddressFact { id, name: name.to_owned() };
    Ok(Applied { outcome, learn: Box::new(move |facts| facts.addresses.push(fact)) })
}

pub(super) async fn create(
    world: &World,
    wish: &NatWish,
    tags: &Tags,
    ids: &Ids<'_>,
) -> Result<Applied<NetworkFacts>> {
    let (subnet, address) = (ids.subnet(&wish.subnet)?, ids.address(&wish.name)?);
    let what = format!("create the NAT gateway `{}`", wish.name);
    // The ids make the token differ in the fleet's next life.
    let token = spec_hash(&["nat", &wish.name, subnet, address]);
    let call = world.clients.ec2.create_nat_gateway().client_token(token).subnet_id(subnet);
    let call = call.allocation_id(address);
    let call = call.tag_specifications(tagged(ResourceType::Natgateway, tags));
    let answer = call.send().await.attempted(|| what.clone())?;
    let id = must(answer.nat_gateway.and_then(|nat| nat.nat_gateway_id), &what, "gateway id")?;
    let fact = NatFact { id, name: wish.name.clone(), state: "pending".into() };
    Ok(Applied::done(move |facts: &mut NetworkFacts| facts.nats.push(fact)))
}

pub(super) async fn delete(world: &World, id: &str) -> Result<Applied<NetworkFacts>> {
    let call = world.clients.ec2.delete_nat_gateway().nat_gateway_id(id).send().await;
    gone(call.attempted(|| deletion("NAT gateway", id)))?;
    // Its address and its interface are free only once it is gone.
    let state = async || match state(&world.clients, id).await? {
        state if matches!(state.as_str(), "deleted" | "") => Ok(Some(())),
        _ => Ok(None),
    };
    match until(world.pace, NAT_DEADLINE, &world.interrupt, state).await? {
        Waited::Came(()) => Ok(Applied::ended(StepOutcome::Done)),
        Waited::TooLong => Err(late(id, "deleted", "deleting", NAT_DEADLINE).into()),
    }
}

fn late(what: &str, wanted: &'static str, state: &str, deadline: Duration) -> AwsError {
    AwsError::TimedOut {
        what: format!("`{what}`"),
        wanted,
        state: state.to_owned(),
        seconds: deadline.as_secs(),
    }
}

/// The state of a NAT gateway; empty when it is not known any more.
async fn state(clients: &Clients, id: &str) -> Result<String, StackError> {
    let answer = clients.ec2.describe_nat_gateways().nat_gateway_ids(id).send().await;
    match answer.attempted(|| format!("describe the NAT gateway `{id}`")) {
        Ok(answer) => {
            let state = answer.nat_gateways().first().and_then(|nat| nat.state());
            Ok(state.map(|state| state.as_str().to_owned()).unwrap_or_default())
        }
        Err(error) if error.is_not_found() => Ok(String::new()),
        Err(error) => Err(error.into()),
    }
}

/// Waits until a NAT gateway carries traffic.
pub(super) async fn available(world: &World, id: &str) -> Result<()> {
    let look = async || match state(&world.clients, id).await?.as_str() {
        "available" => Ok(Some(())),
        "failed" => {
            let what = format!("the NAT gateway `{id}`");
            Err(AwsError::Broken { what, state: "failed".into() }.into())
        }
        _ => Ok(None),
    };
    match until(world.pace, NAT_DEADLINE, &world.interrupt, look).await? {
        Waited::Came(()) => Ok(()),
        Waited::TooLong => Err(late(id, "available", "pending", NAT_DEADLINE).into()),
    }
}

/// Releases an address, which its NAT gateway may hold for a while yet.
pub(super) async fn release(world: &World, id: &str) -> Result<Applied<NetworkFacts>> {
    let call = || world.clients.ec2.release_address().allocation_id(id).send();
    let released = patiently(world.pace, &world.interrupt, async || {
        gone(call().await.attempted(|| format!("release `{id}`")))
    });
    Ok(Applied::ended(released.await?))
}
