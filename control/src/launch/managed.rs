//! The managed node group: EKS's Auto Scaling group around our launch template.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_eks::types::{
    CapacityTypes, LaunchTemplateSpecification, Nodegroup, NodegroupScalingConfig,
};
use contract::StepOutcome;
use contract::names::{TAG_LAYER, TAG_POOL};

use crate::aws::poll::{Waited, a_few_at_once, until};
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::config::spec::{Capacity, Size};
use crate::layers::names::spec_hash;
use crate::stack::{Layer, StackError, World};

/// EKS drains and terminates; a pod that does not go holds it up.
const DELETE_DEADLINE: Duration = Duration::from_secs(1200);

/// A managed node group as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupWish {
    /// Name of the cluster.
    pub cluster: String,
    /// Name, which is the pool's.
    pub name: String,
    /// ARN of its nodes' role.
    pub role: String,
    /// Private subnets.
    pub subnets: Vec<String>,
    /// How many nodes.
    pub size: Size,
    /// How it is paid.
    pub capacity: Capacity,
    /// Labels, which the nodes themselves register with.
    pub labels: BTreeMap<String, String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// A managed node group as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFact {
    /// Name.
    pub name: String,
    /// The layer that made it; empty when it is not ours.
    pub layer: String,
    /// `CREATING`, `ACTIVE`, `UPDATING`, `DELETING`, `CREATE_FAILED`, `DELETE_FAILED`, `DEGRADED`.
    pub status: String,
    /// How many nodes are asked for.
    pub size: Size,
    /// Launch template: id and version.
    pub template: Option<(String, String)>,
    /// In how many subnets it launches, one a zone.
    pub zones: usize,
    /// Health issues, `code: message`.
    pub issues: Vec<String>,
    /// What carries its tags, and which.
    pub tagged: GroupTags,
}

/// The tags of a group, and what it launches through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupTags {
    /// Its ARN.
    pub arn: String,
    /// Its own tags.
    pub tags: BTreeMap<String, String>,
    /// Its Auto Scaling group; none while EKS has not made it.
    pub scaling_group: Option<String>,
}

/// The cluster's node groups; none when there is no cluster.
///
/// # Errors
/// [`AwsError`] when EKS does not answer or refuses.
pub async fn list(clients: &Clients, cluster: &str) -> Result<Vec<GroupFact>, AwsError> {
    list_some(clients, cluster, |_| true).await
}

/// Those of the cluster's node groups whose names are wanted: each costs a call.
///
/// # Errors
/// [`AwsError`] when EKS does not answer or refuses.
pub async fn list_some(
    clients: &Clients,
    cluster: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<GroupFact>, AwsError> {
    let mut names = Vec::new();
    let mut pages = clients.eks.list_nodegroups().cluster_name(cluster).into_paginator().send();
    while let Some(page) = pages.next().await {
        match page.attempted(|| format!("list the node groups of `{cluster}`")) {
            Ok(page) => names.extend_from_slice(page.nodegroups()),
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
    }
    let reads = names.iter().filter(|name| wanted(name));
    let reads = reads.map(|name| describe(clients, cluster, name));
    let facts: Result<Vec<_>, AwsError> = a_few_at_once(reads).await.into_iter().collect();
    Ok(facts?.into_iter().flatten().collect())
}

/// One node group; none when it does not exist.
///
/// # Errors
/// [`AwsError`] when EKS does not answer or refuses.
pub async fn describe(
    clients: &Clients,
    cluster: &str,
    name: &str,
) -> Result<Option<GroupFact>, AwsError> {
    let call = clients.eks.describe_nodegroup().cluster_name(cluster).nodegroup_name(name);
    match call.send().await.attempted(|| format!("describe the node group `{name}`")) {
        Ok(answer) => Ok(answer.nodegroup.map(|group| fact(name, &group))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn fact(name: &str, group: &Nodegroup) -> GroupFact {
    let tag = |key: &str| group.tags().and_then(|tags| tags.get(key)).cloned();
    let number = |value: Option<i32>| value.unwrap_or(0).unsigned_abs();
    let scaling = group.scaling_config();
    GroupFact {
        name: name.to_owned(),
        layer: tag(TAG_LAYER).filter(|_| tag(TAG_POOL).is_some()).unwrap_or_default(),
        status: group.status().map(|status| status.as_str().to_owned()).unwrap_or_default(),
        size: Size {
            min: number(scaling.and_then(NodegroupScalingConfig::min_size)),
            desired: number(scaling.and_then(NodegroupScalingConfig::desired_size)),
            max: number(scaling.and_then(NodegroupScalingConfig::max_size)),
        },
        template: group
            .launch_template()
            .and_then(|t| Some((t.id()?.to_owned(), t.version()?.to_owned()))),
        zones: group.subnets().len(),
        issues: group
            .health()
            .map(|health| health.issues())
            .unwrap_or_default()
            .iter()
            .map(|issue| {
                let code = issue.code().map(|code| code.as_str()).unwrap_or("Unknown");
                format!("{code}: {}", issue.message().unwrap_or_default())
            })
            .collect(),
        tagged: GroupTags {
            arn: group.nodegroup_arn().unwrap_or_default().to_owned(),
            tags: group.tags().cloned().unwrap_or_default().into_iter().collect(),
            scaling_group: group
                .resources()
                .and_then(|resources| resources.auto_scaling_groups().first()?.name())
                .map(str::to_owned),
        },
    }
}

fn scaling(size: Size) -> NodegroupScalingConfig {
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    NodegroupScalingConfig::builder()
        .min_size(number(size.min))
        .desired_size(number(size.desired))
        .max_size(number(size.max))
        .build()
}

fn template(id: &str, version: &str) -> LaunchTemplateSpecification {
    LaunchTemplateSpecification::builder().id(id).version(version).build()
}

/// Makes the group and does not wait for it: EKS's own verdict comes after 25 minutes, ours before.
///
/// # Errors
/// EKS's refusal.
pub async fn create(
    world: &World,
    wish: &GroupWish,
    (id, version): (&str, &str),
) -> Result<StepOutcome, AwsError> {
    let GroupWish { cluster, name, .. } = wish;
    let capacity = match &wish.capacity {
        Capacity::OnDemand | Capacity::Reserved(_) => CapacityTypes::OnDemand,
        Capacity::Spot => CapacityTypes::Spot,
        Capacity::Block(_) => CapacityTypes::CapacityBlock,
    };
    // `amiType`, `version` and `releaseVersion` are not sent: the template names its image.
    let call = world.clients.eks.create_nodegroup().cluster_name(cluster).nodegroup_name(name);
    let call = call.node_role(&wish.role).set_subnets(Some(wish.subnets.clone()));
    let call = call.scaling_config(scaling(wish.size)).capacity_type(capacity);
    let call = call.launch_template(template(id, version));
    let call = call.set_labels(Some(wish.labels.clone().into_iter().collect()));
    let call = call.set_tags(Some(wish.tags.clone().into_iter().collect()));
    let call = call.client_request_token(spec_hash(&["group", cluster, name, id, version]));
    match call.send().await.attempted(|| format!("create the node group `{name}`")) {
        Ok(_) => Ok(StepOutcome::Done),
        Err(error) if error.code() == Some("ResourceInUseException") => Ok(StepOutcome::Unchanged),
        Err(error) => Err(error),
    }
}

/// Asks for another number of nodes.
///
/// # Errors
/// EKS's refusal.
pub async fn resize(
    clients: &Clients,
    cluster: &str,
    name: &str,
    size: Size,
) -> Result<(), AwsError> {
    let call = clients.eks.update_nodegroup_config().cluster_name(cluster).nodegroup_name(name);
    let call = call.scaling_config(scaling(size));
    call.send().await.attempted(|| format!("resize the node group `{name}`")).map(drop)
}

/// Has EKS replace the nodes, a few at a time, by ones of another template version; the update's id.
///
/// # Errors
/// EKS's refusal.
pub async fn roll(
    clients: &Clients,
    cluster: &str,
    name: &str,
    (id, version): (&str, &str),
) -> Result<String, AwsError> {
    let what = || format!("roll the node group `{name}`");
    // A roll that failed may be tried again: how many updates there were is part of the token.
    let before = clients.eks.list_updates().name(cluster).nodegroup_name(name);
    let before = before.into_paginator().items().send().try_collect().await;
    let before = before.attempted(|| format!("list the updates of the node group `{name}`"))?.len();
    let token = spec_hash(&["roll", cluster, name, id, version, &before.to_string()]);
    let call = clients.eks.update_nodegroup_version().cluster_name(cluster).nodegroup_name(name);
    let call = call.launch_template(template(id, version)).client_request_token(token);
    let answer = call.send().await.attempted(what)?;
    let update = answer.update.and_then(|update| update.id);
    update.ok_or_else(|| AwsError::Incomplete { attempted: what(), missing: "update id" })
}

/// How an update of a group stands: its status, and EKS's words for what went wrong.
///
/// # Errors
/// EKS's refusal.
pub async fn update(
    clients: &Clients,
    cluster: &str,
    name: &str,
    id: &str,
) -> Result<(String, String), AwsError> {
    let call = clients.eks.describe_update().name(cluster).nodegroup_name(name).update_id(id);
    let answer = call.send().await;
    let answer = answer.attempted(|| format!("describe the update of the node group `{name}`"))?;
    let Some(update) = answer.update else { return Ok(Default::default()) };
    let status = update.status().map(|status| status.as_str().to_owned()).unwrap_or_default();
    let words = update.errors().iter().filter_map(|error| error.error_message());
    Ok((status, words.collect::<Vec<_>>().join("; ")))
}

/// Removes the group and waits until it is gone, its instances with it.
///
/// # Errors
/// EKS's refusal, or when it does not go.
pub async fn delete(
    world: &World,
    layer: Layer,
    cluster: &str,
    name: &str,
) -> Result<(), StackError> {
    let eks = &world.clients.eks;
    let mut state = String::new();
    let look = async || {
        let Some(group) = describe(&world.clients, cluster, name).await? else {
            return Ok(Some(()));
        };
        state = [vec![group.status.clone()], group.issues].concat().join(", ");
        if group.status == "DELETING" {
            return Ok(None);
        }
        if group.status == "DELETE_FAILED" {
            let what = format!("the {layer} layer's node group `{name}`");
            return Err(AwsError::Broken { what, state: state.clone() }.into());
        }
        let call = eks.delete_nodegroup().cluster_name(cluster).nodegroup_name(name).send().await;
        match call.attempted(|| format!("delete the node group `{name}`")) {
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(Some(())),
            Err(error) if error.code() == Some("ResourceInUseException") => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    match until(world.pace, DELETE_DEADLINE, &world.interrupt, look).await? {
        Waited::Came(()) => Ok(()),
        Waited::TooLong => Err(AwsError::TimedOut {
            what: format!("the node group `{name}`"),
            wanted: "gone",
            state,
            seconds: DELETE_DEADLINE.as_secs(),
        }
        .into()),
    }
}
