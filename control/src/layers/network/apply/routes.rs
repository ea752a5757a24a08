//! Route tables, their routes and who uses them.

use aws_sdk_ec2::types::ResourceType;
use contract::StepOutcome;

use super::{Applied, Ids, Result, deletion, must, nat, owned};
use crate::aws::Attempted as _;
use crate::aws::adopt::adopt_or_create;
use crate::aws::ec2::tagged;
use crate::aws::error::{already, gone};
use crate::layers::network::desired::WayOut;
use crate::layers::network::observe::{self, EVERYWHERE, NetworkFacts, TableFact};
use crate::layers::network::plan::Tags;
use crate::stack::World;

pub(super) async fn create(
    world: &World,
    name: &str,
    tags: &Tags,
    vpc: &str,
) -> Result<Applied<NetworkFacts>> {
    let (clients, fleet) = (&world.clients, &world.scope.fleet);
    let what = format!("create the route table `{name}`");
    let (id, outcome) = adopt_or_create(
        world.pace,
        async || {
            let tables = observe::tables(clients, fleet, &owned(world)).await?;
            Ok(tables.into_iter().filter(|t| t.name == name).map(|t| t.id).collect())
        },
        async || {
            let call = clients.ec2.create_route_table().vpc_id(vpc);
            let call = call.tag_specifications(tagged(ResourceType::RouteTable, tags));
            let answer = call.send().await.attempted(|| what.clone())?;
            must(answer.route_table.and_then(|table| table.route_table_id), &what, "table id")
        },
        async |id| {
            let call = clients.ec2.delete_route_table().route_table_id(id).send().await;
            gone(call.attempted(|| deletion("route table", id))).map(drop)
        },
    )
    .await?;
    let fact = TableFact {
        id,
        name: name.to_owned(),
        way_out: None,
        blackhole: false,
        associations: Vec::new(),
    };
    Ok(Applied { outcome, learn: Box::new(move |facts| facts.tables.push(fact)) })
}

pub(super) async fn lead(
    world: &World,
    table: &str,
    way_out: &WayOut,
    ids: &Ids<'_>,
) -> Result<Applied<NetworkFacts>> {
    let (name, table) = (table.to_owned(), ids.table(table)?);
    let (gateway, nat) = match way_out {
        WayOut::Internet => (Some(ids.gateway()?.to_owned()), None),
        WayOut::Nat(nat) => {
            let id = ids.nat(nat)?;
            nat::available(world, id).await?;
            (None, Some(id.to_owned()))
        }
    };
    let ec2 = &world.clients.ec2;
    let what = || format!("lead the default route of `{name}`");
    if table.way_out.is_some() {
        let call = ec2.replace_route().route_table_id(&table.id);
        let call = call.destination_cidr_block(EVERYWHERE);
        let call = call.set_gateway_id(gateway.clone()).set_nat_gateway_id(nat.clone());
        call.send().await.attempted(what)?;
    } else {
        let call = ec2.create_route().route_table_id(&table.id);
        let call = call.destination_cidr_block(EVERYWHERE);
        let call = call.set_gateway_id(gateway.clone()).set_nat_gateway_id(nat.clone());
        already(call.send().await.attempted(what), "RouteAlreadyExists")?;
    }
    let leads = gateway.or(nat);
    Ok(Applied::done(move |facts: &mut NetworkFacts| {
        if let Some(table) = facts.tables.iter_mut().find(|table| table.name == name) {
            (table.way_out, table.blackhole) = (leads, false);
        }
    }))
}

pub(super) async fn associate(
    world: &World,
    table: &str,
    subnet: &str,
    ids: &Ids<'_>,
) -> Result<Applied<NetworkFacts>> {
    let (fact, subnet_id) = (ids.table(table)?, ids.subnet(subnet)?.to_owned());
    let call = world.clients.ec2.associate_route_table().route_table_id(&fact.id);
    let answer = call.subnet_id(&subnet_id).send().await;
    let what = format!("associate `{subnet}` with the route table `{table}`");
    let id = match answer.attempted(|| what.clone()) {
        Ok(answer) => must(answer.association_id, &what, "association id")?,
        // A retry of a lost answer finds it associated: with this table, or it was somebody else.
        Err(error) if error.code() == Some("Resource.AlreadyAssociated") => {
            association(world, &fact.id, &subnet_id).await?.ok_or(error)?
        }
        Err(error) => return Err(error.into()),
    };
    let name = table.to_owned();
    Ok(Applied::done(move |facts: &mut NetworkFacts| {
        if let Some(table) = facts.tables.iter_mut().find(|table| table.name == name) {
            table.associations.push((id, subnet_id));
        }
    }))
}

async fn association(world: &World, table: &str, subnet: &str) -> Result<Option<String>> {
    let tables = observe::tables(&world.clients, &world.scope.fleet, &owned(world)).await?;
    let ours = tables.into_iter().filter(|fact| fact.id == table);
    let mut associations = ours.flat_map(|fact| fact.associations);
    Ok(associations.find(|(_, used_by)| used_by == subnet).map(|(id, _)| id))
}

pub(super) async fn delete(world: &World, table: &TableFact) -> Result<Applied<NetworkFacts>> {
    let ec2 = &world.clients.ec2;
    for (association, subnet) in &table.associations {
        let call = ec2.disassociate_route_table().association_id(association).send().await;
        gone(call.attempted(|| format!("disassociate `{subnet}` from `{}`", table.id)))?;
    }
    let call = ec2.delete_route_table().route_table_id(&table.id).send().await;
    gone(call.attempted(|| deletion("route table", &table.id)))?;
    Ok(Applied::ended(StepOutcome::Done))
}
