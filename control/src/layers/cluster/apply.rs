//! Makes and removes the cluster; create stands beside delete.

use std::time::Duration;

use aws_sdk_eks::types::{AuthenticationMode, CreateAccessConfigRequest, VpcConfigRequest};
use contract::StepOutcome;

use crate::aws::poll::{Waited, until};
use crate::aws::tagging::{self, Holder};
use crate::aws::{Attempted as _, AwsError};
use crate::layers::cluster::desired::{Desired, Foundation};
use crate::layers::cluster::observe::{self, ControlPlaneFacts};
use crate::layers::cluster::plan::Op;
use crate::layers::names::spec_hash;
use crate::stack::{Applied, Layer, StackError, World};

/// A deletion takes three minutes, ten when interfaces linger.
const DELETE_DEADLINE: Duration = Duration::from_secs(1200);
/// A role that IAM has just made may be unknown to EKS for some seconds.
const ROLE_DEADLINE: Duration = Duration::from_secs(60);

type Done = Result<Applied<ControlPlaneFacts>, StackError>;

/// Does one step.
pub async fn apply(world: &World, op: &Op, _: &ControlPlaneFacts) -> Done {
    match op {
        Op::Create(wish) => create(world, wish).await,
        Op::Tag(arn, tags) => {
            tagging::put(&world.clients, &Holder::Eks(arn.clone()), tags).await?;
            Ok(Applied::ended(StepOutcome::Done))
        }
        Op::Delete(name) => delete(world, name).await,
    }
}

async fn create(world: &World, wish: &Desired) -> Done {
    let Some(foundation) = &wish.foundation else {
        let missing = "the network's subnets and the control plane's role";
        return Err(StackError::Missing { layer: Layer::Cluster, missing });
    };
    let look = async || match request(world, wish, foundation).await {
        Ok(()) => Ok(Some(StepOutcome::Done)),
        // Another run of ours, or our own call whose answer was lost.
        Err(error) if error.code() == Some("ResourceInUseException") => {
            Ok(Some(StepOutcome::Unchanged))
        }
        Err(error) if is_young_role(&error) => Ok(None),
        Err(error) => Err(error.into()),
    };
    let outcome = match until(world.pace, ROLE_DEADLINE, &world.interrupt, look).await? {
        Waited::Came(outcome) => outcome,
        // Once more, for its own words.
        Waited::TooLong => {
            request(world, wish, foundation).await?;
            StepOutcome::Done
        }
    };
    let version = wish.version.clone();
    Ok(Applied {
        outcome,
        learn: Box::new(move |facts| {
            facts.status = Some("CREATING".into());
            (facts.ours, facts.version) = (true, version);
        }),
    })
}

fn is_young_role(error: &AwsError) -> bool {
    error.code() == Some("InvalidParameterException")
        && std::error::Error::source(error).is_some_and(|words| words.to_string().contains("role"))
}

async fn request(world: &World, wish: &Desired, on: &Foundation) -> Result<(), AwsError> {
    let name = &wish.name;
    let vpc = VpcConfigRequest::builder()
        .set_subnet_ids(Some(on.subnets.clone()))
        .endpoint_private_access(true)
        .endpoint_public_access(true)
        .build();
    let access = CreateAccessConfigRequest::builder()
        .authentication_mode(AuthenticationMode::Api)
        .bootstrap_cluster_creator_admin_permissions(true)
        .build();
    let call = world.clients.eks.create_cluster().name(name).version(&wish.version);
    let call = call.role_arn(&on.role).resources_vpc_config(vpc).access_config(access);
    // The same request is the same cluster, however often it is sent.
    let call = call.client_request_token(spec_hash(&["cluster", name, &wish.version, &on.role]));
    let call = call.set_tags(Some(wish.tags.clone().into_iter().collect()));
    call.send().await.attempted(|| format!("create the cluster `{name}`")).map(drop)
}

async fn delete(world: &World, name: &str) -> Done {
    let eks = &world.clients.eks;
    let mut last = None;
    let look = async || {
        let facts = observe::observe(world).await?;
        match facts.status.as_deref() {
            None => return Ok(Some(())),
            Some("DELETING") => return Ok(None),
            Some(_) => {}
        }
        let call = eks.delete_cluster().name(name).send().await;
        match call.attempted(|| format!("delete the cluster `{name}`")) {
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(Some(())),
            // A node group that is still going, or a cluster that is still coming.
            Err(error) if error.code() == Some("ResourceInUseException") => {
                last = Some(error);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    };
    match until(world.pace, DELETE_DEADLINE, &world.interrupt, look).await? {
        Waited::Came(()) => {
            Ok(Applied::done(|facts: &mut ControlPlaneFacts| *facts = ControlPlaneFacts::default()))
        }
        Waited::TooLong => Err(last
            .unwrap_or_else(|| AwsError::TimedOut {
                what: format!("the cluster `{name}`"),
                wanted: "gone",
                state: "DELETING".into(),
                seconds: DELETE_DEADLINE.as_secs(),
            })
            .into()),
    }
}
