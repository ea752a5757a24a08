//! The claims as they are: in the cluster, and in the account by the tags that controllers write.

use aws_sdk_ec2::types::Filter;
use contract::names::TAG_FLEET;
use serde_json::{Value, json};

use crate::aws::ec2::{filter, tag_of};
use crate::aws::signed::Service;
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::kube::claims::Front;
use crate::kube::{self, KubeError};
use crate::layers::claims::TAG_RETAIN;
use crate::layers::cluster::observe::{self as control_plane, ControlPlaneFacts};
use crate::layers::identity::observe as identity;
use crate::layers::network::observe as network;
use crate::stack::{StackError, World};

/// What objects of the cluster hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterClaims {
    /// Services and Ingresses that have a load balancer.
    pub fronts: Vec<Front>,
    /// Volumes that are to stay.
    pub retained: Vec<String>,
}

/// What is in the account because of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountClaims {
    /// ARNs of load balancers.
    pub balancers: Vec<String>,
    /// ARNs of target groups.
    pub targets: Vec<String>,
    /// Ids of instances that carry the fleet's tag and no cluster claims any more.
    pub instances: Vec<String>,
    /// Ids of volumes that no instance uses.
    pub volumes: Vec<String>,
    /// Names of log groups.
    pub logs: Vec<String>,
    /// What these credentials may not look at.
    pub unknown: Vec<String>,
}

/// Reads what the cluster's objects hold; none where there is no cluster of ours.
///
/// # Errors
/// When EKS does not answer, or the cluster cannot be asked.
pub async fn in_cluster(world: &World) -> Result<Option<ClusterClaims>, StackError> {
    let facts = control_plane::observe(world).await?;
    let Some(cluster) = facts.cluster.filter(|_| facts.ours) else { return Ok(None) };
    let attempted = || format!("ask the cluster `{}` what its workloads hold", cluster.name);
    let read = async {
        let cluster = kube::connect(&cluster, world.clients.credentials.clone()).await?;
        let (fronts, retained) = (cluster.fronts().await?, cluster.retained_volumes().await?);
        Ok::<_, KubeError>(ClusterClaims { fronts, retained })
    };
    let read = read.await;
    read.map(Some).map_err(|error| crate::layers::addons::observe::kubernetes(attempted(), error))
}

/// Reads what the account holds because of the cluster. Only for a name that is the fleet's: tags of
/// somebody else's cluster of that name are none of ours.
///
/// # Errors
/// When AWS does not answer. What may not be read is unknown.
pub async fn in_account(world: &World) -> Result<AccountClaims, StackError> {
    let mut claims = AccountClaims::default();
    let control_plane = control_plane::observe(world).await?;
    if !is_ours(world, &control_plane).await? {
        return Ok(claims);
    }
    let (clients, fleet) = (&world.clients, world.scope.fleet.as_str());
    for kind in [Kind::Balancer, Kind::Targets] {
        match tagged(clients, fleet, kind).await {
            Ok(arns) if kind == Kind::Balancer => claims.balancers = arns,
            Ok(arns) => claims.targets = arns,
            Err(error) => claims.unknown.push(unreadable(error)?),
        }
    }
    claims.volumes = volumes(clients, fleet).await?;
    if control_plane.status.is_none() {
        claims.instances = instances(clients, fleet).await?;
    }
    match logs(clients, fleet).await {
        Ok(found) => claims.logs = found,
        Err(error) => claims.unknown.push(unreadable(error)?),
    }
    Ok(claims)
}

/// Whether the name is this fleet's: its cluster carries our tag or, where there is none any more,
/// a role or a VPC does, or subnets of others are marked as its.
async fn is_ours(world: &World, control_plane: &ControlPlaneFacts) -> Result<bool, StackError> {
    if control_plane.status.is_some() {
        return Ok(control_plane.ours);
    }
    let identity = identity::observe(world, None).await?;
    if identity.roles.iter().any(|role| role.ours) {
        return Ok(true);
    }
    let network = network::observe(world, None).await?;
    Ok(network.vpc.is_some() || !network.shared.is_empty())
}

/// What these credentials may not read is unknown; every other error stays one.
fn unreadable(error: AwsError) -> Result<String, AwsError> {
    let denied = ["AccessDenied", "AccessDeniedException", "UnauthorizedOperation"];
    // A partition or a region without the service has no name for it.
    match &error {
        AwsError::Refused { attempted, code, .. } if denied.contains(&code.as_str()) => {
            Ok(format!("{attempted}: {code}"))
        }
        AwsError::Unreachable { attempted, .. } => Ok(format!("{attempted}: no answer")),
        _ => Err(error),
    }
}

/// What is looked for by the tags that controllers write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Balancer,
    Targets,
}

/// The tags that say whose cluster a load balancer is for: the cloud controller manager's and the
/// AWS Load Balancer Controller's.
fn tags_of(fleet: &str) -> [(String, String); 2] {
    [
        (format!("kubernetes.io/cluster/{fleet}"), "owned".to_owned()),
        ("elbv2.k8s.aws/cluster".to_owned(), fleet.to_owned()),
    ]
}

/// States of an instance that costs something.
const ALIVE: [&str; 4] = ["pending", "running", "stopping", "stopped"];
/// Version of the API of classic load balancers, and of all others.
const CLASSIC: &str = "2012-06-01";
pub(super) const CURRENT: &str = "2015-12-01";

async fn tagged(clients: &Clients, fleet: &str, kind: Kind) -> Result<Vec<String>, AwsError> {
    let tagging = Service::of(clients, "tagging");
    let resource = match kind {
        Kind::Balancer => "elasticloadbalancing:loadbalancer",
        Kind::Targets => "elasticloadbalancing:targetgroup",
    };
    let what = || format!("list the load balancers of `{fleet}`");
    let mut arns = Vec::new();
    for (key, value) in tags_of(fleet) {
        let mut token = String::new();
        loop {
            let body = json!({
                "ResourceTypeFilters": [resource], "PaginationToken": token,
                "TagFilters": [{"Key": key, "Values": [value]}],
            });
            let target = "ResourceGroupsTaggingAPI_20170126.GetResources";
            let answer = tagging.json(target, &body, what).await?;
            let found = answer["ResourceTagMappingList"].as_array().into_iter().flatten();
            arns.extend(found.filter_map(|one| one["ResourceARN"].as_str().map(str::to_owned)));
            token = answer["PaginationToken"].as_str().unwrap_or_default().to_owned();
            if token.is_empty() {
                break;
            }
        }
    }
    arns.sort();
    arns.dedup();
    // The index of tags knows what is gone for a while longer.
    let mut there = Vec::new();
    for arn in arns {
        if exists(clients, &arn, kind).await? {
            there.push(arn);
        }
    }
    Ok(there)
}

/// The name of a classic load balancer; none for the others.
pub(super) fn classic_name(arn: &str) -> Option<(&str, &'static str)> {
    let name = arn.rsplit_once(":loadbalancer/")?.1;
    (!name.contains('/')).then_some((name, CLASSIC))
}

async fn exists(clients: &Clients, arn: &str, kind: Kind) -> Result<bool, AwsError> {
    let service = Service::of(clients, "elasticloadbalancing");
    let what = || format!("describe `{arn}`");
    let action = match kind {
        Kind::Balancer => "DescribeLoadBalancers",
        Kind::Targets => "DescribeTargetGroups",
    };
    let (key, value, version) = match (kind, classic_name(arn)) {
        (Kind::Balancer, Some((name, version))) => ("LoadBalancerNames.member.1", name, version),
        (Kind::Balancer, None) => ("LoadBalancerArns.member.1", arn, CURRENT),
        (Kind::Targets, _) => ("TargetGroupArns.member.1", arn, CURRENT),
    };
    let parameters = [("Action", action), ("Version", version), (key, value)];
    match service.query(&parameters, what).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Volumes that nobody uses any more: those that the EBS CSI driver made for the cluster, and those
/// of nodes that did not go with them.
async fn volumes(clients: &Clients, fleet: &str) -> Result<Vec<String>, AwsError> {
    let made = (format!("tag:kubernetes.io/cluster/{fleet}"), "owned");
    let mut ids = Vec::new();
    for (tag, value) in [made, (format!("tag:{TAG_FLEET}"), fleet)] {
        let call = clients.ec2.describe_volumes().filters(filter(&tag, value));
        let pages = call.filters(filter("status", "available")).into_paginator().items().send();
        let found = pages.try_collect().await;
        let found = found.attempted(|| format!("list the volumes of `{fleet}`"))?;
        let unwanted = found.iter().filter(|v| tag_of(v.tags(), TAG_RETAIN).is_none());
        ids.extend(unwanted.filter_map(|volume| volume.volume_id().map(str::to_owned)));
    }
    ids.sort();
    ids.dedup();
    Ok(ids)
}

/// Instances that carry the fleet's tag and are not on their way out.
async fn instances(clients: &Clients, fleet: &str) -> Result<Vec<String>, AwsError> {
    let alive = Filter::builder().name("instance-state-name");
    let alive = alive.set_values(Some(ALIVE.map(str::to_owned).to_vec())).build();
    let call = clients.ec2.describe_instances().filters(alive);
    let call = call.filters(filter(&format!("tag:{TAG_FLEET}"), fleet));
    let pages = call.into_paginator().items().send().try_collect().await;
    let found = pages.attempted(|| format!("list the instances of `{fleet}`"))?;
    let found = found.iter().flat_map(|reservation| reservation.instances());
    Ok(found.filter_map(|instance| instance.instance_id().map(str::to_owned)).collect())
}

/// The log group that EKS writes the control plane's logs to.
async fn logs(clients: &Clients, fleet: &str) -> Result<Vec<String>, AwsError> {
    let name = format!("/aws/eks/{fleet}/cluster");
    let service = Service::of(clients, "logs");
    let body = json!({"logGroupNamePrefix": name});
    let what = || format!("look for the log group `{name}`");
    let answer = service.json("Logs_20140328.DescribeLogGroups", &body, what).await?;
    let groups = answer["logGroups"].as_array().into_iter().flatten();
    let names = groups.filter_map(|group: &Value| group["logGroupName"].as_str());
    // A prefix is no name.
    Ok(names.filter(|found| *found == name).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_balancers_of_both_generations_are_told_apart() {
        let arn =
            |rest: &str| format!("arn:aws:elasticloadbalancing:us-east-1:1:loadbalancer/{rest}");
        assert_eq!(classic_name(&arn("a123")), Some(("a123", CLASSIC)));
        assert_eq!(classic_name(&arn("net/a123/0f")), None);
    }
}
