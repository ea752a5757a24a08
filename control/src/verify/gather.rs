//! Reads what the checks judge.

use std::collections::BTreeSet;

use contract::names::TAG_FLEET;

use crate::aws::ec2::tag_of;
use crate::aws::eks::{self, facts_of};
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::diagnose::node_verdicts;
use crate::kube::{self, Cluster, manifests};
use crate::launch::managed;
use crate::verify::Facts;

/// Reads everything about a fleet that the checks judge. A cluster that cannot be asked is a fact.
///
/// # Errors
/// When AWS does not answer.
pub async fn gather(clients: &Clients, fleet: &str) -> Result<Facts, AwsError> {
    let listed = clusters(clients).await?;
    let described = eks::cluster(clients, fleet).await?.filter(|_| listed.contains(fleet));
    let status = described.as_ref().and_then(|found| found.status());
    let status = status.map(|status| status.as_str().to_owned());
    let facts = described.as_ref().and_then(|found| facts_of(found, &clients.region));
    let connected = match &facts {
        Some(facts) => {
            kube::connect(facts, clients.credentials.clone()).await.map_err(|e| words(&e))
        }
        None => Err("there is no cluster to ask".to_owned()),
    };
    let (identity, pods) = match &connected {
        Ok(cluster) => ask(cluster).await,
        Err(why) => (Err(why.clone()), Err(why.clone())),
    };
    let groups = managed::list(clients, fleet).await?;
    let nodes = node_verdicts(clients, connected.as_ref().ok(), fleet).await?;
    Ok(Facts {
        fleet: fleet.to_owned(),
        region: clients.region.clone(),
        status,
        identity,
        desired: groups.iter().map(|group| group.size.desired).sum(),
        nodes,
        pods,
        orphans: orphans(clients, &listed).await?,
    })
}

type Asked<T> = Result<T, String>;

async fn ask(cluster: &Cluster) -> (Asked<String>, Asked<Vec<kube::PodFacts>>) {
    let identity = cluster.prove().await.map(|identity| identity.username);
    let pods = cluster.pods(manifests::NAMESPACE, "", None).await;
    (identity.map_err(|e| words(&e)), pods.map_err(|e| words(&e)))
}

fn words(error: &kube::KubeError) -> String {
    contract::ErrorChain(error).to_string()
}

async fn clusters(clients: &Clients) -> Result<BTreeSet<String>, AwsError> {
    let pages = clients.eks.list_clusters().into_paginator().items().send();
    let names = pages.collect::<Result<Vec<_>, _>>().await;
    let names = names.attempted(|| format!("list the clusters of {}", clients.place()))?;
    Ok(names.into_iter().collect())
}

/// VPCs of fleets that have no cluster.
async fn orphans(
    clients: &Clients,
    clusters: &BTreeSet<String>,
) -> Result<Vec<(String, String)>, AwsError> {
    let tagged = aws_sdk_ec2::types::Filter::builder().name("tag-key").values(TAG_FLEET).build();
    let pages = clients.ec2.describe_vpcs().filters(tagged).into_paginator().items().send();
    let vpcs = pages.try_collect().await.attempted(|| "list the fleets' VPCs".to_owned())?;
    let orphan = |vpc: &aws_sdk_ec2::types::Vpc| {
        let fleet = tag_of(vpc.tags(), TAG_FLEET)?;
        let id = vpc.vpc_id()?;
        (!clusters.contains(fleet)).then(|| (fleet.to_owned(), id.to_owned()))
    };
    Ok(vpcs.iter().filter_map(orphan).collect())
}
