//! Gives back what workloads hold.

use std::time::Duration;

use contract::StepOutcome;
use serde_json::json;

use crate::aws::error::gone;
use crate::aws::poll::{Waited, patiently, until};
use crate::aws::signed::Service;
use crate::aws::{Attempted as _, AwsError, ec2};
use crate::kube::claims::Front;
use crate::kube::{self, Cluster};
use crate::layers::addons::observe::kubernetes;
use crate::layers::claims::observe::{CURRENT, classic_name, in_account, in_cluster};
use crate::layers::claims::{Op, TAG_RETAIN, releases, removals};
use crate::layers::cluster::observe as control_plane;
use crate::stack::report::StepReport;
use crate::stack::{StackError, Step, World};

/// A load balancer goes within a minute or two; where no controller is left to see to it, the object
/// never goes, and waiting longer changes nothing.
const FRONTS_DEADLINE: Duration = Duration::from_secs(300);

/// Deletes the Services and Ingresses that have load balancers, and waits until they are gone. A
/// cluster that cannot be asked keeps nobody from taking the fleet down: what it holds is found by its
/// tags afterwards.
///
/// # Errors
/// AWS's refusal, or an interrupt.
pub async fn release(world: &World) -> Result<Vec<StepReport>, StackError> {
    let claims = match in_cluster(world).await {
        Ok(Some(claims)) => claims,
        Ok(None) => return Ok(Vec::new()),
        Err(StackError::Kubernetes { attempted, source, .. }) => {
            let why = format!("{}: {}", attempted, contract::ErrorChain(source.as_ref()));
            tracing::warn!(why, "workloads keep what they hold until the cluster is gone");
            return Ok(vec![StepReport::degraded("workloads", &world.scope.fleet, why)]);
        }
        Err(error) => return Err(error),
    };
    let steps = releases(&claims);
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    world.lease.prove().await?;
    let Some(facts) = control_plane::observe(world).await?.cluster else { return Ok(Vec::new()) };
    let failed = |error| kubernetes(format!("connect to the cluster `{}`", facts.name), error);
    let cluster = kube::connect(&facts, world.clients.credentials.clone()).await.map_err(failed)?;
    let mut reports = Vec::new();
    for step in &steps {
        if let Op::DeleteFront(front) = &step.op {
            delete_front(&cluster, front).await?;
        } else {
            reports.push(StepReport::of(step, do_one(world, &step.op).await?));
        }
    }
    let left = wait_for_fronts(world, &cluster).await?;
    for step in &steps {
        let Op::DeleteFront(front) = &step.op else { continue };
        let outcome = match left.contains(front) {
            true => StepOutcome::Degraded("no controller has let it go".to_owned()),
            false => StepOutcome::Done,
        };
        reports.push(StepReport::of(step, outcome));
    }
    Ok(reports)
}

async fn delete_front(cluster: &Cluster, front: &Front) -> Result<(), StackError> {
    let what = || format!("delete `{}/{}`", front.namespace, front.name);
    cluster.delete_front(front).await.map(drop).map_err(|error| kubernetes(what(), error))
}

/// Waits until no such object is there; those that stay.
async fn wait_for_fronts(world: &World, cluster: &Cluster) -> Result<Vec<Front>, StackError> {
    let mut left = Vec::new();
    let look = async || {
        let what = || "wait for the load balancers of Services".to_owned();
        left = cluster.fronts().await.map_err(|error| kubernetes(what(), error))?;
        Ok(left.is_empty().then_some(()))
    };
    match until(world.pace, FRONTS_DEADLINE, &world.interrupt, look).await? {
        Waited::Came(()) => Ok(Vec::new()),
        Waited::TooLong => Ok(left),
    }
}

/// Removes what is in the account because of a cluster that is gone.
///
/// # Errors
/// AWS's refusal, or an interrupt.
pub async fn remove(world: &World) -> Result<Vec<StepReport>, StackError> {
    let claims = in_account(world).await?;
    let mut reports: Vec<StepReport> = claims
        .unknown
        .iter()
        .map(|why| StepReport::degraded("workloads", &world.scope.fleet, why.clone()))
        .collect();
    let mut steps: Vec<Step<Op>> = removals(&claims);
    steps.sort_by_key(|step| step.stage);
    for step in &steps {
        if world.interrupt.is_raised() {
            return Err(StackError::Interrupted);
        }
        world.lease.prove().await?;
        reports.push(StepReport::of(step, do_one(world, &step.op).await?));
    }
    Ok(reports)
}

async fn do_one(world: &World, op: &Op) -> Result<StepOutcome, StackError> {
    let clients = &world.clients;
    let balancing = Service::of(clients, "elasticloadbalancing");
    match op {
        // The caller's, who waits for all of them.
        Op::DeleteFront(_) => Ok(StepOutcome::Unchanged),
        Op::Retain(ids) => {
            let mark = [(TAG_RETAIN.to_owned(), "true".to_owned())].into();
            let call = clients.ec2.create_tags().set_resources(Some(ids.clone()));
            let answer = call.set_tags(Some(ec2::tags(&mark))).send().await;
            answer.attempted(|| format!("mark `{}` as to be kept", ids.join("`, `")))?;
            Ok(StepOutcome::Done)
        }
        Op::DeleteBalancer(arn) => {
            let (key, value, version) = match classic_name(arn) {
                Some((name, version)) => ("LoadBalancerName", name, version),
                None => ("LoadBalancerArn", arn.as_str(), CURRENT),
            };
            let parameters = [("Action", "DeleteLoadBalancer"), ("Version", version), (key, value)];
            let what = || format!("delete the load balancer `{arn}`");
            Ok(gone(balancing.query(&parameters, what).await)?)
        }
        Op::DeleteTargets(arn) => {
            let parameters = [
                ("Action", "DeleteTargetGroup"),
                ("Version", CURRENT),
                ("TargetGroupArn", arn.as_str()),
            ];
            let what = || format!("delete the target group `{arn}`");
            let call = async || gone(balancing.query(&parameters, what).await);
            patiently(world.pace, &world.interrupt, call).await
        }
        Op::Terminate(id) => {
            let call = clients.ec2.terminate_instances().instance_ids(id).send().await;
            Ok(gone(call.attempted(|| format!("terminate the instance `{id}`")))?)
        }
        Op::DeleteVolume(id) => {
            let call = clients.ec2.delete_volume().volume_id(id).send().await;
            Ok(gone(call.attempted(|| format!("delete the volume `{id}`")))?)
        }
        Op::DeleteLogs(name) => {
            let body = json!({"logGroupName": name});
            let what = || format!("delete the log group `{name}`");
            let logs = Service::of(clients, "logs");
            let answer: Result<_, AwsError> =
                logs.json("Logs_20140328.DeleteLogGroup", &body, what).await;
            Ok(gone(answer)?)
        }
    }
}
