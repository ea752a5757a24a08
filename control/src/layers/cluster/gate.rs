//! Proves the cluster: ACTIVE; TLS with its CA; an authenticated and authorised call.

use std::time::Duration;

use crate::aws::AwsError;
use crate::aws::poll::{Waited, until};
use crate::failure::Advice as _;
use crate::kube;
use crate::layers::cluster::ControlPlaneFacts;
use crate::layers::cluster::observe;
use crate::stack::{Gate, Inputs, StackError, World};

/// A control plane takes nine minutes; 20 is what EKS allows itself.
const DEADLINE: Duration = Duration::from_secs(1200);

/// The namespace that what the next layers apply goes into.
const SYSTEM: &str = "kube-system";

/// Waits until the cluster is ACTIVE and answers us.
pub async fn wait(
    world: &World,
    inputs: &Inputs,
    facts: &mut ControlPlaneFacts,
) -> Result<Gate, StackError> {
    let (gate, found) = within(world, Some(inputs), DEADLINE).await?;
    *facts = found;
    Ok(gate)
}

/// Waits that long; the gate's answer, and the cluster as it is then. Without inputs it may be in any
/// VPC.
///
/// # Errors
/// When AWS does not answer, or waiting cannot help.
pub async fn within(
    world: &World,
    inputs: Option<&Inputs>,
    deadline: Duration,
) -> Result<(Gate, ControlPlaneFacts), StackError> {
    let mut missing = String::from("there is no cluster");
    let mut facts = ControlPlaneFacts::default();
    let look = async || {
        let now = observe::observe(world).await?;
        let Some(status) = now.status.clone() else { return Ok(None) };
        facts = now;
        if status == "FAILED" {
            let what = format!("the cluster `{}`", world.scope.fleet);
            return Err(AwsError::Broken { what, state: status }.into());
        }
        if !matches!(status.as_str(), "ACTIVE" | "UPDATING") {
            missing = format!("the cluster is {status}");
            return Ok(None);
        }
        if let Some(vpc) = inputs.and_then(|inputs| elsewhere(inputs, &facts)) {
            missing = format!("the cluster is in `{vpc}`, which is not this fleet's VPC");
            return Ok(None);
        }
        match prove(world, &facts).await {
            Ok(Some(identity)) => Ok(Some(identity)),
            Ok(None) => {
                missing = format!("its namespace `{SYSTEM}` is not there yet");
                Ok(None)
            }
            Err(error) if error.is_transient() => {
                missing = contract::ErrorChain(&error).to_string();
                Ok(None)
            }
            Err(error) => Err(StackError::Kubernetes {
                attempted: "prove the cluster's API server".into(),
                hint: error.hint(),
                source: Box::new(error),
            }),
        }
    };
    let gate = match until(world.pace, deadline, &world.interrupt, look).await? {
        Waited::Came(username) => {
            Gate::open(format!("ACTIVE, TLS with its CA, known there as `{username}`"))
        }
        Waited::TooLong => Gate::timed_out(missing),
    };
    Ok((gate, facts))
}

/// The VPC of a cluster that is not in ours: a read of one that bore the name before, whose security
/// group would keep every node from starting.
fn elsewhere<'a>(inputs: &Inputs, facts: &'a ControlPlaneFacts) -> Option<&'a str> {
    let ours = &inputs.given.network.as_ref()?.vpc;
    facts.cluster.as_ref().map(|cluster| cluster.vpc.as_str()).filter(|vpc| vpc != ours)
}

/// Who we are to the cluster; none while it does not have what it begins with.
async fn prove(
    world: &World,
    facts: &ControlPlaneFacts,
) -> Result<Option<String>, kube::KubeError> {
    let Some(cluster) = &facts.cluster else {
        // An ACTIVE cluster has all of its facts; without them there is nobody to ask yet.
        return Ok(None);
    };
    let cluster = kube::connect(cluster, world.clients.credentials.clone()).await?;
    let username = cluster.prove().await?.username;
    Ok(cluster.has_namespace(SYSTEM).await?.then_some(username))
}
