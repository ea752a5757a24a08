//! EKS: the cluster's facts.

use aws_sdk_eks::types::Cluster;
use serde::Serialize;

use crate::aws::{Attempted as _, AwsError, Clients};

/// What everything that talks to a cluster must agree on, read live from DescribeCluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterFacts {
    /// Name of the cluster, which is the fleet's.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Its ARN.
    pub arn: String,
    /// `https://…`.
    pub endpoint: String,
    /// The CA's certificate, PEM in base64.
    pub certificate_authority: String,
    /// Kubernetes version, `1.34`.
    pub version: String,
    /// The services' addresses.
    pub service_cidr: String,
    /// The security group that EKS made for control plane and nodes.
    pub security_group: String,
    /// The VPC.
    pub vpc: String,
    /// The control plane's role.
    pub cluster_role_arn: String,
    /// The nodes' roles.
    pub node_role_arns: Vec<String>,
    /// OpenID Connect issuer.
    pub oidc_issuer: String,
    /// `ACTIVE` and its like.
    pub status: String,
}

/// The cluster as EKS describes it, none when there is no such cluster.
///
/// # Errors
/// [`AwsError`] when EKS does not answer or refuses.
pub async fn cluster(clients: &Clients, name: &str) -> Result<Option<Cluster>, AwsError> {
    let answer = clients
        .eks
        .describe_cluster()
        .name(name)
        .send()
        .await
        .attempted(|| format!("describe the cluster `{name}`"));
    match answer {
        Ok(answer) => Ok(answer.cluster),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The cluster's facts, none while there is no cluster or it has no endpoint yet.
///
/// # Errors
/// [`AwsError`] when EKS or IAM does not answer or refuses.
pub async fn cluster_facts(
    clients: &Clients,
    name: &str,
) -> Result<Option<ClusterFacts>, AwsError> {
    let Some(cluster) = cluster(clients, name).await? else { return Ok(None) };
    Ok(facts_of(&cluster, &clients.region))
}

/// The roles whose sessions may join as nodes: those with an access entry of type `EC2_LINUX`.
///
/// # Errors
/// [`AwsError`] when EKS does not answer or refuses.
pub async fn node_roles(clients: &Clients, cluster: &str) -> Result<Vec<String>, AwsError> {
    let principals = clients
        .eks
        .list_access_entries()
        .cluster_name(cluster)
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .attempted(|| format!("list the access entries of `{cluster}`"))?;
    let mut roles = Vec::new();
    for principal in principals {
        let answer = clients
            .eks
            .describe_access_entry()
            .cluster_name(cluster)
            .principal_arn(&principal)
            .send()
            .await
            .attempted(|| format!("read the access entry of `{principal}`"))?;
        if answer.access_entry().and_then(|entry| entry.r#type()) == Some("EC2_LINUX") {
            roles.push(principal);
        }
    }
    Ok(roles)
}

/// The facts in a description; none while a value that only a finished cluster has is missing.
#[must_use]
pub fn facts_of(cluster: &Cluster, region: &str) -> Option<ClusterFacts> {
    let vpc = cluster.resources_vpc_config()?;
    Some(ClusterFacts {
        name: cluster.name()?.to_owned(),
        region: region.to_owned(),
        arn: cluster.arn()?.to_owned(),
        endpoint: cluster.endpoint()?.to_owned(),
        certificate_authority: cluster.certificate_authority()?.data()?.to_owned(),
        version: cluster.version()?.to_owned(),
        service_cidr: cluster.kubernetes_network_config()?.service_ipv4_cidr()?.to_owned(),
        security_group: vpc.cluster_security_group_id()?.to_owned(),
        vpc: vpc.vpc_id()?.to_owned(),
        cluster_role_arn: cluster.role_arn()?.to_owned(),
        node_role_arns: Vec::new(),
        oidc_issuer: cluster
            .identity()
            .and_then(|i| i.oidc())
            .and_then(|o| o.issuer())
            .unwrap_or_default()
            .to_owned(),
        status: cluster.status().map(|s| s.as_str().to_owned()).unwrap_or_default(),
    })
}
