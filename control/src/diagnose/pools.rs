//! The node groups behind a fleet's pools, as plain facts.

use contract::names::{LABEL_NODE_TYPE, TAG_FLEET};
use serde::Serialize;

use crate::aws::poll::a_few_at_once;
use crate::aws::{Attempted as _, AwsError, Clients};

/// What EKS says of a pool's node group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolFacts {
    /// Name of the node group, which is the pool's.
    pub name: String,
    /// `system`, `gpu`, …, when its label says so.
    pub class: Option<String>,
    /// `ACTIVE`, `CREATING`, `CREATE_FAILED`, …
    pub status: String,
    /// Nodes asked for.
    pub desired: u32,
    /// EKS's own complaints, `Code: message`.
    pub issues: Vec<String>,
    /// Its Auto Scaling group.
    pub scaling_group: Option<String>,
    /// The nodes' role.
    pub node_role: Option<String>,
}

/// The fleet's node groups; none when the cluster does not exist.
///
/// # Errors
/// When EKS does not answer.
pub async fn pools(clients: &Clients, fleet: &str) -> Result<Vec<PoolFacts>, AwsError> {
    let names = clients
        .eks
        .list_nodegroups()
        .cluster_name(fleet)
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .attempted(|| format!("list the node groups of `{fleet}`"));
    let names = match names {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        names => names?,
    };
    let read = a_few_at_once(names.iter().map(|name| pool(clients, fleet, name))).await;
    let read: Result<Vec<_>, AwsError> = read.into_iter().collect();
    Ok(read?.into_iter().flatten().collect())
}

/// One of them; none when it was deleted meanwhile, or is somebody else's.
async fn pool(clients: &Clients, fleet: &str, name: &str) -> Result<Option<PoolFacts>, AwsError> {
    let call = clients.eks.describe_nodegroup().cluster_name(fleet).nodegroup_name(name);
    match call.send().await.attempted(|| format!("describe the node group `{name}`")) {
        Ok(answer) => Ok(answer.nodegroup().and_then(|group| facts_of(group, fleet))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn facts_of(group: &aws_sdk_eks::types::Nodegroup, fleet: &str) -> Option<PoolFacts> {
    // A group that somebody else keeps on the same cluster is not part of the fleet.
    if group.tags().and_then(|tags| tags.get(TAG_FLEET)).is_none_or(|owner| owner != fleet) {
        return None;
    }
    let issues = group.health().map(|health| health.issues()).unwrap_or_default();
    Some(PoolFacts {
        name: group.nodegroup_name()?.to_owned(),
        class: group.labels().and_then(|labels| labels.get(LABEL_NODE_TYPE)).cloned(),
        status: group.status().map_or("", |status| status.as_str()).to_owned(),
        desired: group
            .scaling_config()
            .and_then(|scaling| u32::try_from(scaling.desired_size()?).ok())
            .unwrap_or_default(),
        issues: issues
            .iter()
            .map(|issue| {
                let code = issue.code().map_or("unknown", |code| code.as_str());
                let ids = match issue.resource_ids() {
                    [] => String::new(),
                    ids => format!(" ({})", ids.join(", ")),
                };
                format!("{code}: {}{ids}", issue.message().unwrap_or("no message"))
            })
            .collect(),
        scaling_group: group
            .resources()
            .and_then(|resources| resources.auto_scaling_groups().first()?.name())
            .map(str::to_owned),
        node_role: group.node_role().map(str::to_owned),
    })
}
