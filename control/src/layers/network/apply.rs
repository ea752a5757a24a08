//! Makes and removes the network's parts; create stands beside delete.

use std::time::Duration;

use aws_sdk_ec2::types::{AttributeBooleanValue, DomainType, ResourceType};
use contract::StepOutcome;
use contract::names::TAG_FLEET;

use crate::aws::adopt::adopt_or_create;
use crate::aws::ec2::{filter, tagged};
use crate::aws::poll::{Waited, until};
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::layers::names::spec_hash;
use crate::layers::network::desired::{NatWish, SubnetWish, WayOut};
use crate::layers::network::observe::{
    self, AddressFact, EVERYWHERE, GatewayFact, NatFact, NetworkFacts, SubnetFact, TableFact,
    VpcFact,
};
use crate::layers::network::plan::{Op, Tags};
use crate::stack::{Applied, Layer, StackError, World};

/// A NAT gateway takes a minute and a half; nobody has seen ten.
const NAT_DEADLINE: Duration = Duration::from_secs(600);
/// Interfaces of ended instances and load balancers linger for minutes.
const DEPENDENCY_DEADLINE: Duration = Duration::from_secs(600);

type Result<T, E = StackError> = std::result::Result<T, E>;

/// Does one step.
pub async fn apply(world: &World, op: &Op, facts: &NetworkFacts) -> Result<Applied<NetworkFacts>> {
    let ids = Ids(facts);
    match op {
        Op::CreateVpc(cidr, tags) => create_vpc(world, cidr, tags).await,
        Op::SetDns => set_dns(world, ids.vpc()?).await,
        Op::CreateGateway(tags) => create_gateway(world, tags).await,
        Op::AttachGateway => attach(world, ids.gateway()?, ids.vpc()?).await,
        Op::CreateSubnet(wish, tags) => create_subnet(world, wish, tags, ids.vpc()?).await,
        Op::Allocate(name, tags) => allocate(world, name, tags).await,
        Op::CreateNat(wish, tags) => create_nat(world, wish, tags, &ids).await,
        Op::CreateTable(name, tags) => create_table(world, name, tags, ids.vpc()?).await,
        Op::SetRoute(table, way_out) => set_route(world, table, way_out, &ids).await,
        Op::Associate(table, subnet) => associate(world, table, subnet, &ids).await,
        Op::DeleteNat(id) => delete_nat(world, id).await,
        Op::Release(id) => {
            let call = || world.clients.ec2.release_address().allocation_id(id).send();
            patiently(world, async || gone(call().await.attempted(|| format!("release `{id}`"))))
                .await
        }
        Op::DeleteTable(table) => delete_table(world, table).await,
        Op::DeleteInterface(id) => {
            let call = || world.clients.ec2.delete_network_interface().network_interface_id(id);
            patiently(world, async || {
                gone(call().send().await.attempted(|| deletion("interface", id)))
            })
            .await
        }
        Op::DeleteSecurityGroup(id) => {
            let call = || world.clients.ec2.delete_security_group().group_id(id);
            let what = || deletion("security group", id);
            patiently(world, async || gone(call().send().await.attempted(what))).await
        }
        Op::DeleteSubnet(id) => {
            let call = || world.clients.ec2.delete_subnet().subnet_id(id);
            patiently(world, async || {
                gone(call().send().await.attempted(|| deletion("subnet", id)))
            })
            .await
        }
        Op::DeleteGateway(gateway) => delete_gateway(world, gateway).await,
        Op::DeleteVpc(id) => {
            let call = || world.clients.ec2.delete_vpc().vpc_id(id);
            patiently(world, async || gone(call().send().await.attempted(|| deletion("VPC", id))))
                .await
        }
    }
}

fn deletion(kind: &str, id: &str) -> String {
    format!("delete the {kind} `{id}`")
}

/// Finds the ids of what earlier steps made.
struct Ids<'a>(&'a NetworkFacts);

impl Ids<'_> {
    fn missing(missing: &'static str) -> StackError {
        StackError::Missing { layer: Layer::Network, missing }
    }

    fn vpc(&self) -> Result<&str> {
        self.0.vpc.as_ref().map(|vpc| vpc.id.as_str()).ok_or_else(|| Self::missing("its VPC"))
    }

    fn gateway(&self) -> Result<&str> {
        let gateway = self.0.gateway.as_ref().map(|gateway| gateway.id.as_str());
        gateway.ok_or_else(|| Self::missing("its internet gateway"))
    }

    fn subnet(&self, name: &str) -> Result<&str> {
        let subnet = self.0.subnets.iter().find(|subnet| subnet.name == name);
        subnet.map(|subnet| subnet.id.as_str()).ok_or_else(|| Self::missing("its subnets"))
    }

    fn address(&self, name: &str) -> Result<&str> {
        let address = self.0.addresses.iter().find(|address| address.name == name);
        address.map(|address| address.id.as_str()).ok_or_else(|| Self::missing("its addresses"))
    }

    fn nat(&self, name: &str) -> Result<&str> {
        let nat = self.0.nats.iter().find(|nat| nat.name == name);
        nat.map(|nat| nat.id.as_str()).ok_or_else(|| Self::missing("its NAT gateways"))
    }

    fn table(&self, name: &str) -> Result<&TableFact> {
        let table = self.0.tables.iter().find(|table| table.name == name);
        table.ok_or_else(|| Self::missing("its route tables"))
    }
}

fn owned(world: &World) -> aws_sdk_ec2::types::Filter {
    filter(&format!("tag:{TAG_FLEET}"), &world.scope.fleet)
}

fn must<T>(value: Option<T>, attempted: &str, missing: &'static str) -> Result<T, AwsError> {
    value.ok_or_else(|| AwsError::Incomplete { attempted: attempted.into(), missing })
}

async fn create_vpc(world: &World, cidr: &str, tags: &Tags) -> Result<Applied<NetworkFacts>> {
    let (clients, fleet) = (&world.clients, &world.scope.fleet);
    let what = format!("create the VPC `{fleet}`");
    let (id, outcome) = adopt_or_create(
        world.pace,
        async || {
            let vpcs = observe::vpcs(clients, fleet, &owned(world)).await?;
            Ok(vpcs.into_iter().map(|vpc| vpc.id).collect())
        },
        async || {
            let call = clients.ec2.create_vpc().cidr_block(cidr);
            let call = call.tag_specifications(tagged(ResourceType::Vpc, tags));
            let answer = call.send().await.attempted(|| what.clone())?;
            must(answer.vpc.and_then(|vpc| vpc.vpc_id), &what, "VPC id")
        },
        async |id| {
            let call = clients.ec2.delete_vpc().vpc_id(id).send().await;
            gone(call.attempted(|| deletion("VPC", id)))
        },
    )
    .await?;
    let fact = VpcFact { id, cidr: cidr.to_owned(), dns_support: false, dns_hostnames: false };
    Ok(Applied { outcome, learn: Box::new(move |facts| facts.vpc = Some(fact)) })
}

async fn set_dns(world: &World, vpc: &str) -> Result<Applied<NetworkFacts>> {
    let on = || AttributeBooleanValue::builder().value(true).build();
    let what = || format!("turn DNS on in the VPC `{vpc}`");
    // One attribute a call: EC2 refuses two.
    let call = || world.clients.ec2.modify_vpc_attribute().vpc_id(vpc);
    call().enable_dns_support(on()).send().await.attempted(what)?;
    call().enable_dns_hostnames(on()).send().await.attempted(what)?;
    Ok(Applied::done(|facts: &mut NetworkFacts| {
        if let Some(vpc) = &mut facts.vpc {
            (vpc.dns_support, vpc.dns_hostnames) = (true, true);
        }
    }))
}

async fn create_gateway(world: &World, tags: &Tags) -> Result<Applied<NetworkFacts>> {
    let (clients, fleet) = (&world.clients, &world.scope.fleet);
    let what = format!("create the internet gateway `{fleet}`");
    let (id, outcome) = adopt_or_create(
        world.pace,
        async || {
            let gateways = observe::gateways(clients, fleet, &owned(world)).await?;
            Ok(gateways.into_iter().map(|gateway| gateway.id).collect())
        },
        async || {
            let call = clients.ec2.create_internet_gateway();
            let call = call.tag_specifications(tagged(ResourceType::InternetGateway, tags));
            let answer = call.send().await.attempted(|| what.clone())?;
            let id = answer.internet_gateway.and_then(|gateway| gateway.internet_gateway_id);
            must(id, &what, "gateway id")
        },
        async |id| delete_detached_gateway(clients, id).await,
    )
    .await?;
    let fact = GatewayFact { id, vpc: None };
    Ok(Applied { outcome, learn: Box::new(move |facts| facts.gateway = Some(fact)) })
}

async fn attach(world: &World, gateway: &str, vpc: &str) -> Result<Applied<NetworkFacts>> {
    let call = world.clients.ec2.attach_internet_gateway();
    let answer = call.internet_gateway_id(gateway).vpc_id(vpc).send().await;
    let answer = answer.attempted(|| format!("attach the gateway `{gateway}` to `{vpc}`"));
    // A retry of a lost answer finds it attached.
    already(answer, "Resource.AlreadyAssociated")?;
    let vpc = vpc.to_owned();
    Ok(Applied::done(move |facts: &mut NetworkFacts| {
        if let Some(gateway) = &mut facts.gateway {
            gateway.vpc = Some(vpc);
        }
    }))
}

async fn delete_gateway(world: &World, gateway: &GatewayFact) -> Result<Applied<NetworkFacts>> {
    let (ec2, id) = (&world.clients.ec2, gateway.id.as_str());
    if let Some(vpc) = &gateway.vpc {
        patiently(world, async || {
            let call = ec2.detach_internet_gateway().internet_gateway_id(id).vpc_id(vpc);
            let answer = call.send().await.attempted(|| format!("detach the gateway `{id}`"));
            gone(already(answer.map(|_| ()), "Gateway.NotAttached"))
        })
        .await?;
    }
    delete_detached_gateway(&world.clients, id).await?;
    Ok(Applied::ended(StepOutcome::Done))
}

async fn delete_detached_gateway(clients: &Clients, id: &str) -> Result<(), AwsError> {
    let call = clients.ec2.delete_internet_gateway().internet_gateway_id(id).send().await;
    gone(call.attempted(|| deletion("internet gateway", id)))
}

async fn create_subnet(
    world: &World,
    wish: &SubnetWish,
    tags: &Tags,
    vpc: &str,
) -> Result<Applied<NetworkFacts>> {
    let (clients, fleet, name) = (&world.clients, &world.scope.fleet, wish.name.as_str());
    let what = format!("create the subnet `{name}`");
    let (id, outcome) = adopt_or_create(
        world.pace,
        async || {
            let subnets = observe::subnets(clients, fleet, &owned(world)).await?;
            Ok(subnets.into_iter().filter(|s| s.name == name).map(|s| s.id).collect())
        },
        async || {
            let call = clients.ec2.create_subnet().vpc_id(vpc).cidr_block(wish.cidr.to_string());
            let call = call.availability_zone(&wish.zone);
            let call = call.tag_specifications(tagged(ResourceType::Subnet, tags));
            let answer = call.send().await.attempted(|| what.clone())?;
            must(answer.subnet.and_then(|subnet| subnet.subnet_id), &what, "subnet id")
        },
        async |id| {
            let call = clients.ec2.delete_subnet().subnet_id(id).send().await;
            gone(call.attempted(|| deletion("subnet", id)))
        },
    )
    .await?;
    let fact = SubnetFact {
        id,
        name: wish.name.clone(),
        zone: wish.zone.clone(),
        cidr: wish.cidr.to_string(),
        free: wish.cidr.usable(),
        public: wish.public,
    };
    Ok(Applied {
        outcome,
        learn: Box::new(move |facts| {
            facts.subnets.push(fact);
            facts.subnets.sort_by(|a, b| a.id.cmp(&b.id));
        }),
    })
}

async fn allocate(world: &World, name: &str, tags: &Tags) -> Result<Applied<NetworkFacts>> {
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
            gone(call.attempted(|| format!("release the address `{id}`")))
        },
    )
    .await?;
    let fact = AddressFact { id, name: name.to_owned() };
    Ok(Applied { outcome, learn: Box::new(move |facts| facts.addresses.push(fact)) })
}

async fn create_nat(
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

async fn delete_nat(world: &World, id: &str) -> Result<Applied<NetworkFacts>> {
    let call = world.clients.ec2.delete_nat_gateway().nat_gateway_id(id).send().await;
    gone(call.attempted(|| deletion("NAT gateway", id)))?;
    // Its address and its interface are free only once it is gone.
    let state = async || match nat_state(&world.clients, id).await? {
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
async fn nat_state(clients: &Clients, id: &str) -> Result<String, StackError> {
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
pub(super) async fn nat_available(world: &World, id: &str) -> Result<()> {
    let look = async || match nat_state(&world.clients, id).await?.as_str() {
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

async fn create_table(
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
            gone(call.attempted(|| deletion("route table", id)))
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

async fn set_route(
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
            nat_available(world, id).await?;
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
        already(call.send().await.attempted(what).map(|_| ()), "RouteAlreadyExists")?;
    }
    let leads = gateway.or(nat);
    Ok(Applied::done(move |facts: &mut NetworkFacts| {
        if let Some(table) = facts.tables.iter_mut().find(|table| table.name == name) {
            (table.way_out, table.blackhole) = (leads, false);
        }
    }))
}

async fn associate(
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

async fn delete_table(world: &World, table: &TableFact) -> Result<Applied<NetworkFacts>> {
    let ec2 = &world.clients.ec2;
    for (association, subnet) in &table.associations {
        let call = ec2.disassociate_route_table().association_id(association).send().await;
        gone(call.attempted(|| format!("disassociate `{subnet}` from `{}`", table.id)))?;
    }
    let call = ec2.delete_route_table().route_table_id(&table.id).send().await;
    gone(call.attempted(|| deletion("route table", &table.id)))?;
    Ok(Applied::ended(StepOutcome::Done))
}

/// A deletion of what is not there any more is done.
fn gone<T>(answer: Result<T, AwsError>) -> Result<(), AwsError> {
    match answer {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// A call whose effect is already there is done.
fn already<T>(answer: Result<T, AwsError>, code: &str) -> Result<(), AwsError> {
    match answer {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(code) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Repeats a deletion while something that is itself on its way out still holds it.
async fn patiently(
    world: &World,
    delete: impl AsyncFn() -> Result<(), AwsError>,
) -> Result<Applied<NetworkFacts>> {
    let held = |error: &AwsError| {
        matches!(
            error.code(),
            Some("DependencyViolation" | "InvalidIPAddress.InUse" | "InvalidParameterValue")
                | Some("InvalidNetworkInterface.InUse" | "ResourceInUse")
        )
    };
    let last = std::cell::RefCell::new(None);
    let look = async || match delete().await {
        Ok(()) => Ok(Some(())),
        Err(error) if held(&error) => {
            last.replace(Some(error));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    };
    match until(world.pace, DEPENDENCY_DEADLINE, &world.interrupt, look).await? {
        Waited::Came(()) => Ok(Applied::ended(StepOutcome::Done)),
        Waited::TooLong => Err(match last.into_inner() {
            Some(error) => error.into(),
            None => StackError::Interrupted,
        }),
    }
}
