//! The add-ons as they are.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::aws::poll::side_by_side;
use crate::aws::tagging::Tags;
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::kube::{self, Cluster};
use crate::layers::addons::desired::{BEFORE_NODES, desired};
use crate::stack::{Inputs, StackError, World};

/// The add-ons as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AddonsFacts {
    /// Whether there is a cluster to have any.
    pub cluster: bool,
    /// Those that exist, by name.
    pub addons: BTreeMap<String, AddonFact>,
    /// Names of the objects that are not as asked.
    pub objects_missing: Vec<String>,
}

/// An add-on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddonFact {
    /// `CREATING`, `ACTIVE`, `DEGRADED`, `CREATE_FAILED`, `DELETING`, …
    pub status: String,
    /// Its health issues, `code: message`.
    pub issues: Vec<String>,
    /// Its ARN; empty while EKS has just been asked for it.
    pub arn: String,
    /// Its tags.
    pub tags: Tags,
}

/// Reads what is there.
///
/// # Errors
/// Those of the reads.
pub async fn observe(world: &World, inputs: Option<&Inputs>) -> Result<AddonsFacts, StackError> {
    let (clients, name) = (&world.clients, &world.scope.fleet);
    let reads = BEFORE_NODES.map(|addon| describe(clients, name, addon));
    let found: Result<Vec<_>, AwsError> = side_by_side(reads).await.into_iter().collect();
    let addons = BEFORE_NODES.iter().zip(found?);
    let addons = addons.filter_map(|(name, fact)| Some(((*name).to_owned(), fact?))).collect();
    let Some(inputs) = inputs else {
        return Ok(AddonsFacts { cluster: true, addons, objects_missing: Vec::new() });
    };
    let objects = desired(inputs).objects;
    let objects_missing = match connect(world, inputs).await? {
        Some(cluster) => missing(&cluster, &objects).await?,
        None => objects.iter().map(label).collect(),
    };
    Ok(AddonsFacts { cluster: inputs.given.cluster.is_some(), addons, objects_missing })
}

/// `ClusterRole rollcall-node`.
#[must_use]
pub fn label(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// The objects that are not in the cluster as asked.
///
/// # Errors
/// Those of the reads.
pub async fn missing(cluster: &Cluster, objects: &[Value]) -> Result<Vec<String>, StackError> {
    let mut missing = Vec::new();
    for object in objects {
        let applied = cluster.is_applied(object).await;
        if !applied.map_err(|error| kubernetes(format!("read {}", label(object)), error))? {
            missing.push(label(object));
        }
    }
    Ok(missing)
}

/// A client for the cluster below; none while it is not built.
///
/// # Errors
/// When no client can be made.
pub async fn connect(world: &World, inputs: &Inputs) -> Result<Option<Cluster>, StackError> {
    let Some(facts) = &inputs.given.cluster else { return Ok(None) };
    let cluster = kube::connect(facts, world.clients.credentials.clone()).await;
    let attempted = || format!("connect to the cluster `{}`", facts.name);
    cluster.map(Some).map_err(|error| kubernetes(attempted(), error))
}

/// A Kubernetes error of a layer.
pub fn kubernetes(attempted: String, error: kube::KubeError) -> StackError {
    use crate::failure::Advice as _;
    StackError::Kubernetes { attempted, hint: error.hint(), source: Box::new(error) }
}

/// An add-on, none when it or its cluster does not exist.
///
/// # Errors
/// Those of the read.
pub async fn describe(
    clients: &Clients,
    cluster: &str,
    addon: &str,
) -> Result<Option<AddonFact>, AwsError> {
    let call = clients.eks.describe_addon().cluster_name(cluster).addon_name(addon);
    match call.send().await.attempted(|| format!("describe the add-on `{addon}`")) {
        Ok(answer) => Ok(answer.addon.map(|addon| AddonFact {
            arn: addon.addon_arn().unwrap_or_default().to_owned(),
            tags: addon.tags().cloned().unwrap_or_default().into_iter().collect(),
            status: addon.status().map(|s| s.as_str().to_owned()).unwrap_or_default(),
            issues: addon
                .health()
                .map(|health| health.issues())
                .unwrap_or_default()
                .iter()
                .map(|issue| {
                    let code = issue.code().map(|code| code.as_str()).unwrap_or("Unknown");
                    format!("{code}: {}", issue.message().unwrap_or_default())
                })
                .collect(),
        })),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
