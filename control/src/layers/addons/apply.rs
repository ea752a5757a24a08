//! Makes and removes add-ons; create stands beside delete.

use std::time::Duration;

use aws_sdk_eks::types::ResolveConflicts;
use contract::StepOutcome;
use serde_json::Value;

use crate::aws::eks::cluster_facts;
use crate::aws::poll::{Waited, until};
use crate::aws::tagging::{self, Holder};
use crate::aws::{Attempted as _, AwsError};
use crate::kube;
use crate::layers::addons::desired::AddonWish;
use crate::layers::addons::observe::{AddonFact, AddonsFacts, describe, kubernetes, label};
use crate::layers::addons::plan::Op;
use crate::layers::names::spec_hash;
use crate::stack::{Applied, Layer, StackError, World};

const DELETE_DEADLINE: Duration = Duration::from_secs(300);
/// Reads lag behind writes by seconds.
const READ_DEADLINE: Duration = Duration::from_secs(30);

type Done = Result<Applied<AddonsFacts>, StackError>;

/// Does one step.
pub async fn apply(world: &World, op: &Op, _: &AddonsFacts) -> Done {
    match op {
        Op::Create(cluster, wish) => {
            let outcome = create(world, cluster, wish).await?;
            let name = wish.name.clone();
            let fact = AddonFact { status: "CREATING".into(), ..AddonFact::default() };
            let learn = move |facts: &mut AddonsFacts| drop(facts.addons.insert(name, fact));
            Ok(Applied { outcome, learn: Box::new(learn) })
        }
        Op::Tag(arn, tags) => {
            tagging::put(&world.clients, &Holder::Eks(arn.clone()), tags).await?;
            Ok(Applied::ended(StepOutcome::Done))
        }
        Op::Apply(object) => Ok(Applied::ended(apply_object(world, Layer::Addons, object).await?)),
        Op::Delete(cluster, name) => {
            delete(world, cluster, name).await?;
            let name = name.clone();
            Ok(Applied::done(move |facts: &mut AddonsFacts| drop(facts.addons.remove(&name))))
        }
    }
}

/// Applies an object to the fleet's cluster.
///
/// # Errors
/// When there is no cluster, or it refuses.
pub async fn apply_object(
    world: &World,
    layer: Layer,
    object: &Value,
) -> Result<StepOutcome, StackError> {
    let what = format!("apply {}", label(object));
    // The layer below has proven it; a read may still be from before that.
    let look = async || Ok(cluster_facts(&world.clients, &world.scope.fleet).await?);
    let Waited::Came(facts) = until(world.pace, READ_DEADLINE, &world.interrupt, look).await?
    else {
        return Err(StackError::Missing { layer, missing: "an ACTIVE cluster" });
    };
    let cluster = kube::connect(&facts, world.clients.credentials.clone()).await;
    let cluster = cluster.map_err(|error| kubernetes(what.clone(), error))?;
    cluster.apply(object).await.map_err(|error| kubernetes(what, error))
}

/// Makes an add-on; one that is there already is adopted.
///
/// # Errors
/// EKS's refusal.
pub async fn create(
    world: &World,
    cluster: &str,
    wish: &AddonWish,
) -> Result<StepOutcome, AwsError> {
    let name = &wish.name;
    let call = world.clients.eks.create_addon().cluster_name(cluster).addon_name(name);
    // EKS installs its own aws-node and kube-proxy into a new cluster; the add-on takes them over.
    let call = call.resolve_conflicts(ResolveConflicts::Overwrite);
    let call = call.client_request_token(spec_hash(&["addon", cluster, name]));
    let call = call.set_tags(Some(wish.tags.clone().into_iter().collect()));
    match call.send().await.attempted(|| format!("create the add-on `{name}`")) {
        Ok(_) => Ok(StepOutcome::Done),
        Err(error) if error.code() == Some("ResourceInUseException") => Ok(StepOutcome::Unchanged),
        Err(error) => Err(error),
    }
}

/// Removes an add-on and waits until it is gone: EKS deletes no cluster before.
///
/// # Errors
/// EKS's refusal, or when it does not go.
pub async fn delete(world: &World, cluster: &str, name: &str) -> Result<(), StackError> {
    let call = world.clients.eks.delete_addon().cluster_name(cluster).addon_name(name);
    match call.send().await.attempted(|| format!("delete the add-on `{name}`")) {
        Ok(_) => {}
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let mut state = String::new();
    let look = async || match describe(&world.clients, cluster, name).await? {
        None => Ok(Some(())),
        Some(fact) => {
            state = fact.status;
            Ok(None)
        }
    };
    match until(world.pace, DELETE_DEADLINE, &world.interrupt, look).await? {
        Waited::Came(()) => Ok(()),
        Waited::TooLong => Err(AwsError::TimedOut {
            what: format!("the add-on `{name}`"),
            wanted: "gone",
            state,
            seconds: DELETE_DEADLINE.as_secs(),
        }
        .into()),
    }
}
