//! Makes and removes the network's parts; create stands beside delete.

mod endpoints;
mod groups;
mod nat;
mod routes;

use aws_sdk_ec2::types::{AttributeBooleanValue, ResourceType};
use contract::StepOutcome;
use contract::names::TAG_FLEET;

use crate::aws::adopt::adopt_or_create;
use crate::aws::ec2::{self, filter, tagged};
use crate::aws::error::{already, gone};
use crate::aws::poll::patiently;
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::layers::network::desired::SubnetWish;
use crate::layers::network::observe::{
    self, GatewayFact, NetworkFacts, SubnetFact, TableFact, VpcFact,
};
use crate::layers::network::plan::{Op, Tags};
use crate::stack::{Applied, Layer, StackError, World};

type Result<T, E = StackError> = std::result::Result<T, E>;

/// Does one step.
pub async fn apply(world: &World, op: &Op, facts: &NetworkFacts) -> Result<Applied<NetworkFacts>> {
    let (ids, ec2) = (Ids(facts), &world.clients.ec2);
    match op {
        Op::CreateVpc(cidr, tags) => create_vpc(world, cidr, tags).await,
        Op::SetDns => set_dns(world, ids.vpc()?).await,
        Op::CreateGateway(tags) => create_gateway(world, tags).await,
        Op::AttachGateway => attach(world, ids.gateway()?, ids.vpc()?).await,
        Op::CreateSubnet(wish, tags) => create_subnet(world, wish, tags, ids.vpc()?).await,
        Op::Allocate(name, tags) => nat::allocate(world, name, tags).await,
        Op::CreateNat(wish, tags) => nat::create(world, wish, tags, &ids).await,
        Op::CreateTable(name, tags) => routes::create(world, name, tags, ids.vpc()?).await,
        Op::SetRoute(table, way_out) => routes::lead(world, table, way_out, &ids).await,
        Op::Associate(table, subnet) => routes::associate(world, table, subnet, &ids).await,
        Op::CreateGroup(wish, tags) => groups::create(world, wish, tags, ids.network()?).await,
        Op::Allow(group, rule) => groups::allow(world, ids.group(group)?, rule).await,
        Op::CreateEndpoint(wish, service, tags) => {
            endpoints::create(world, (wish, service), tags, &ids).await
        }
        Op::ExtendEndpoint(name, subnets, tables) => {
            endpoints::extend(world, name, (subnets, tables), &ids).await
        }
        Op::Share(subnets) => share(world, subnets).await,
        Op::Unshare(subnets) => unshare(world, subnets).await,
        Op::Tag(ids, tags) => tag(world, ids, tags).await,
        Op::DeleteEndpoints(ids) => endpoints::delete(world, ids).await,
        Op::DeleteNat(id) => nat::delete(world, id).await,
        Op::Release(id) => nat::release(world, id).await,
        Op::DeleteTable(table) => routes::delete(world, table).await,
        Op::DeleteInterface(id) => {
            let call = || ec2.delete_network_interface().network_interface_id(id).send();
            let what = || deletion("interface", id);
            remove(world, async || gone(call().await.attempted(what))).await
        }
        Op::DeleteSecurityGroup(id) => {
            let call = || ec2.delete_security_group().group_id(id).send();
            let what = || deletion("security group", id);
            remove(world, async || gone(call().await.attempted(what))).await
        }
        Op::DeleteSubnet(id) => {
            let call = || ec2.delete_subnet().subnet_id(id).send();
            remove(world, async || gone(call().await.attempted(|| deletion("subnet", id)))).await
        }
        Op::DeleteGateway(gateway) => delete_gateway(world, gateway).await,
        Op::DeleteVpc(id) => {
            let call = || ec2.delete_vpc().vpc_id(id).send();
            remove(world, async || gone(call().await.attempted(|| deletion("VPC", id)))).await
        }
    }
}

/// Removes what something that is itself on its way out may still hold.
async fn remove(
    world: &World,
    delete: impl AsyncFn() -> Result<StepOutcome, AwsError>,
) -> Result<Applied<NetworkFacts>> {
    Ok(Applied::ended(patiently(world.pace, &world.interrupt, delete).await?))
}

/// Puts tags on what lacks them.
async fn tag(world: &World, ids: &[String], tags: &Tags) -> Result<Applied<NetworkFacts>> {
    let call = world.clients.ec2.create_tags().set_resources(Some(ids.to_vec()));
    let answer = call.set_tags(Some(ec2::tags(tags))).send().await;
    answer.attempted(|| format!("tag `{}`", ids.join("`, `")))?;
    Ok(Applied::ended(StepOutcome::Done))
}

/// Marks subnets of others as ones that the cluster uses and does not own.
async fn share(world: &World, subnets: &[String]) -> Result<Applied<NetworkFacts>> {
    let key = observe::existing::cluster_tag(&world.scope.fleet);
    tag(world, subnets, &Tags::from([(key, observe::existing::SHARED.to_owned())])).await
}

async fn unshare(world: &World, subnets: &[String]) -> Result<Applied<NetworkFacts>> {
    let key = observe::existing::cluster_tag(&world.scope.fleet);
    let call = world.clients.ec2.delete_tags().set_resources(Some(subnets.to_vec()));
    let call = call.tags(aws_sdk_ec2::types::Tag::builder().key(key).build()).send().await;
    let what = || format!("take the cluster's tag off `{}`", subnets.join("`, `"));
    Ok(Applied::ended(gone(call.attempted(what))?))
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

    /// The VPC that the fleet is in, its own or not.
    fn network(&self) -> Result<&str> {
        match self.0.existing.as_ref().and_then(|existing| existing.vpc.as_ref()) {
            Some(vpc) => Ok(&vpc.id),
            None => self.vpc(),
        }
    }

    fn group(&self, name: &str) -> Result<&str> {
        let group = self.0.security_groups.iter().find(|group| group.ours && group.name == name);
        group.map(|group| group.id.as_str()).ok_or_else(|| Self::missing("its security groups"))
    }

    fn endpoint(&self, name: &str) -> Result<&str> {
        let endpoint = self.0.endpoints.iter().find(|endpoint| endpoint.name == name);
        endpoint.map(|e| e.id.as_str()).ok_or_else(|| Self::missing("its VPC endpoints"))
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
            gone(call.attempted(|| deletion("VPC", id))).map(drop)
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
        patiently(world.pace, &world.interrupt, async || {
            let call = ec2.detach_internet_gateway().internet_gateway_id(id).vpc_id(vpc);
            let answer = call.send().await.attempted(|| format!("detach the gateway `{id}`"));
            gone(already(answer, "Gateway.NotAttached"))
        })
        .await?;
    }
    delete_detached_gateway(&world.clients, id).await?;
    Ok(Applied::ended(StepOutcome::Done))
}

async fn delete_detached_gateway(clients: &Clients, id: &str) -> Result<(), AwsError> {
    let call = clients.ec2.delete_internet_gateway().internet_gateway_id(id).send().await;
    gone(call.attempted(|| deletion("internet gateway", id))).map(drop)
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
            let call = call.availability_zone(&wish.zone.name);
            let call = call.tag_specifications(tagged(ResourceType::Subnet, tags));
            let answer = call.send().await.attempted(|| what.clone())?;
            must(answer.subnet.and_then(|subnet| subnet.subnet_id), &what, "subnet id")
        },
        async |id| {
            let call = clients.ec2.delete_subnet().subnet_id(id).send().await;
            gone(call.attempted(|| deletion("subnet", id))).map(drop)
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
