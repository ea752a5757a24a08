//! Makes and removes the system layer's parts.

use contract::StepOutcome;

use crate::aws::eks::cluster_facts;
use crate::aws::tagging::{self, Holder};
use crate::kube;
use crate::layers::addons::apply::{create, delete};
use crate::layers::addons::desired::AddonWish;
use crate::layers::addons::observe::{AddonFact, kubernetes};
use crate::layers::pools::apply as pools;
use crate::layers::pools::gate as pools_gate;
use crate::layers::system::SystemFacts;
use crate::layers::system::desired::COREDNS;
use crate::layers::system::plan::Op;
use crate::stack::{Applied, Layer, StackError, World};

type Done = Result<Applied<SystemFacts>, StackError>;

/// Does one step.
pub async fn apply(world: &World, op: &Op, facts: &SystemFacts) -> Done {
    match op {
        Op::Pool(op) => {
            let done = pools::apply(world, Layer::System, op, &facts.pools).await?;
            Ok(done.within(|facts: &mut SystemFacts| &mut facts.pools))
        }
        Op::CreateDns(wish) => create_dns(world, wish).await,
        Op::TagDns(arn, tags) => {
            tagging::put(&world.clients, &Holder::Eks(arn.clone()), tags).await?;
            Ok(Applied::ended(StepOutcome::Done))
        }
        Op::DeleteDns => {
            delete(world, &world.scope.fleet, COREDNS).await?;
            Ok(Applied::done(|facts: &mut SystemFacts| facts.dns = None))
        }
    }
}

/// CoreDNS is a Deployment: without a node it would only be DEGRADED, and look like a fault.
async fn create_dns(world: &World, wish: &AddonWish) -> Done {
    let fleet = &world.scope.fleet;
    let Some(facts) = cluster_facts(&world.clients, fleet).await? else {
        return Err(StackError::Missing { layer: Layer::System, missing: "an ACTIVE cluster" });
    };
    let cluster = kube::connect(&facts, world.clients.credentials.clone()).await;
    let cluster = cluster.map_err(|error| kubernetes(format!("connect to `{fleet}`"), error))?;
    // Without a node the gate says which one did not come, and why; CoreDNS is made all the same.
    pools_gate::first_node(world, Layer::System, &cluster).await?;
    let outcome = create(world, fleet, wish).await?;
    let fact = AddonFact { status: "CREATING".into(), ..AddonFact::default() };
    let learn = move |facts: &mut SystemFacts| facts.dns = Some(fact);
    Ok(Applied { outcome, learn: Box::new(learn) })
}
