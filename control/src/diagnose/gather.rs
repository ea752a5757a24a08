//! Everything that bears on one node, read side by side, each under its own deadline: one that fails
//! or hangs becomes an `Unknown` and hides none of the others.

use std::time::Duration;

use super::facts::{ConsoleFacts, Known, NodeEvidence};
use super::pools::{PoolFacts, pools};
use super::survey::console;
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::kube::Cluster;
use crate::kube::events::EventFacts;

/// How long one source may take.
const DEADLINE: Duration = Duration::from_secs(15);
/// How many scaling activities are looked at, newest first.
const ACTIVITIES: i32 = 20;

/// The evidence on one node.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// What the survey knows of it.
    pub node: NodeEvidence,
    /// Its console, read in any case.
    pub console: Known<ConsoleFacts>,
    /// EC2's status checks.
    pub checks: Known<Option<StatusChecks>>,
    /// Its node group.
    pub pool: Known<Option<PoolFacts>>,
    /// Failed scaling activities of its group, newest first.
    pub activities: Known<Vec<Activity>>,
    /// The access entry of its role.
    pub access: Known<AccessFacts>,
    /// Kubernetes events about it.
    pub events: Known<Vec<EventFacts>>,
}

/// EC2's status checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusChecks {
    /// The host: `ok`, `impaired`, `initializing`, …
    pub system: String,
    /// The instance.
    pub instance: String,
}

/// One scaling activity that did not succeed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// `Failed`, `Cancelled`.
    pub status: String,
    /// EC2's words.
    pub message: String,
}

/// What the cluster knows of the node's role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessFacts {
    /// The role.
    pub role: String,
    /// The type of its access entry; none when it has no entry.
    pub entry: Option<String>,
}

/// Reads everything that bears on one node.
pub async fn gather(
    clients: &Clients,
    cluster: Option<&Cluster>,
    fleet: &str,
    node: NodeEvidence,
) -> Evidence {
    let instance = node.instance.id.as_str();
    let (console, checks, (pool, activities, access), events) = tokio::join!(
        within("the console", console(clients, instance)),
        within("the status checks", checks(clients, instance)),
        pool_side(clients, fleet, &node.instance.pool),
        events(cluster, &node),
    );
    Evidence { console, checks, pool, activities, access, events, node }
}

async fn within<T>(what: &str, read: impl Future<Output = Result<T, AwsError>>) -> Known<T> {
    match tokio::time::timeout(DEADLINE, read).await {
        Ok(result) => Known::of(result),
        Err(_elapsed) => Known::Unknown(no_answer(what)),
    }
}

fn no_answer(what: &str) -> String {
    format!("could not read {what}: no answer within {} s", DEADLINE.as_secs())
}

async fn checks(clients: &Clients, instance: &str) -> Result<Option<StatusChecks>, AwsError> {
    let answer = clients
        .ec2
        .describe_instance_status()
        .instance_ids(instance)
        .include_all_instances(true)
        .send()
        .await
        .attempted(|| format!("read the status checks of `{instance}`"))?;
    let text = |summary: Option<&aws_sdk_ec2::types::InstanceStatusSummary>| {
        summary.and_then(|s| s.status()).map_or("unknown", |status| status.as_str()).to_owned()
    };
    Ok(answer.instance_statuses().first().map(|status| StatusChecks {
        system: text(status.system_status()),
        instance: text(status.instance_status()),
    }))
}

/// The node group, and what hangs on it: its Auto Scaling group's activities and its role's entry.
async fn pool_side(
    clients: &Clients,
    fleet: &str,
    name: &str,
) -> (Known<Option<PoolFacts>>, Known<Vec<Activity>>, Known<AccessFacts>) {
    let pool = within("the node group", async {
        Ok(pools(clients, fleet).await?.into_iter().find(|pool| pool.name == name))
    })
    .await;
    let unknown = |what: &str| match pool.why_unknown() {
        Some(why) => why.to_owned(),
        None => format!("could not read {what}: EKS has no node group `{name}`"),
    };
    let group = pool.present().and_then(|pool| pool.scaling_group.clone());
    let role = pool.present().and_then(|pool| pool.node_role.clone());
    let (activities, access) = tokio::join!(
        async {
            match group {
                Some(group) => within("the scaling activities", activities(clients, &group)).await,
                None => Known::Unknown(unknown("the scaling activities")),
            }
        },
        async {
            match role {
                Some(role) => within("the access entry", access(clients, fleet, &role)).await,
                None => Known::Unknown(unknown("the access entry")),
            }
        },
    );
    (pool, activities, access)
}

async fn activities(clients: &Clients, group: &str) -> Result<Vec<Activity>, AwsError> {
    let answer = clients
        .autoscaling
        .describe_scaling_activities()
        .auto_scaling_group_name(group)
        .max_records(ACTIVITIES)
        .send()
        .await
        .attempted(|| format!("read the scaling activities of `{group}`"))?;
    Ok(answer
        .activities()
        .iter()
        .filter_map(|activity| {
            let status = activity.status_code()?.as_str();
            matches!(status, "Failed" | "Cancelled").then(|| Activity {
                status: status.to_owned(),
                message: activity.status_message().unwrap_or("no message").to_owned(),
            })
        })
        .collect())
}

async fn access(clients: &Clients, cluster: &str, role: &str) -> Result<AccessFacts, AwsError> {
    let answer = clients
        .eks
        .describe_access_entry()
        .cluster_name(cluster)
        .principal_arn(role)
        .send()
        .await
        .attempted(|| format!("read the access entry of `{role}`"));
    let entry = match answer {
        Ok(answer) => answer
            .access_entry()
            .map(|entry| entry.r#type().unwrap_or("of no known type").to_owned()),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    Ok(AccessFacts { role: role.to_owned(), entry })
}

async fn events(cluster: Option<&Cluster>, node: &NodeEvidence) -> Known<Vec<EventFacts>> {
    let (Some(cluster), Some(node)) = (cluster, node.node.present()) else {
        return Known::Known(Vec::new());
    };
    match tokio::time::timeout(DEADLINE, cluster.node_events(&node.name)).await {
        Ok(result) => Known::of(result),
        Err(_elapsed) => Known::Unknown(no_answer("the events")),
    }
}
