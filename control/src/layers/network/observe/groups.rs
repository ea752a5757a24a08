//! Security groups and network interfaces: all of them in a VPC of the fleet's own, the fleet's alone in
//! one that it shares.

use aws_sdk_ec2::types::{Filter, IpPermission, SecurityGroup};
use contract::names::TAG_FLEET;

use super::{by_id, text};
use crate::aws::ec2::{filter, tag_of};
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::layers::network::desired::Rule;

/// The VPC CNI's tag on interfaces: which cluster they were made for.
const TAG_CNI_CLUSTER: &str = "cluster.k8s.amazonaws.com/name";
/// All protocols, as EC2 writes it.
pub const ALL: &str = "-1";

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceFact {
    /// Id.
    pub id: String,
    /// `available` or `in-use`.
    pub status: String,
    /// What AWS or the CNI wrote about it.
    pub description: String,
}

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityGroupFact {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Whether it carries this fleet's tag.
    pub ours: bool,
    /// Its rules, as far as they are of a kind that we make.
    pub rules: Vec<Rule>,
}

/// The interfaces in a VPC, whoever made them.
pub(super) async fn interfaces_in(
    clients: &Clients,
    vpc: &str,
) -> Result<Vec<InterfaceFact>, AwsError> {
    interfaces(clients, filter("vpc-id", vpc), vpc).await
}

/// The interfaces that the CNI made for the fleet's cluster.
pub(super) async fn interfaces_of(
    clients: &Clients,
    fleet: &str,
) -> Result<Vec<InterfaceFact>, AwsError> {
    interfaces(clients, filter(&format!("tag:{TAG_CNI_CLUSTER}"), fleet), fleet).await
}

async fn interfaces(
    clients: &Clients,
    of: Filter,
    whose: &str,
) -> Result<Vec<InterfaceFact>, AwsError> {
    let pages = clients.ec2.describe_network_interfaces().filters(of);
    let interfaces = pages.into_paginator().items().send().try_collect().await;
    let interfaces = interfaces.attempted(|| format!("list the interfaces of `{whose}`"))?;
    let interfaces = interfaces.into_iter().map(|interface| InterfaceFact {
        id: text(interface.network_interface_id()),
        status: interface.status().map(|s| s.as_str().to_owned()).unwrap_or_default(),
        description: text(interface.description()),
    });
    Ok(by_id(interfaces, |interface| &interface.id))
}

/// The security groups in a VPC but its default one, whoever made them.
pub(super) async fn security_groups_in(
    clients: &Clients,
    vpc: &str,
    fleet: &str,
) -> Result<Vec<SecurityGroupFact>, AwsError> {
    groups(clients, filter("vpc-id", vpc), fleet).await
}

/// The security groups that carry the fleet's tag, wherever they are.
pub(in crate::layers::network) async fn security_groups_of(
    clients: &Clients,
    fleet: &str,
) -> Result<Vec<SecurityGroupFact>, AwsError> {
    groups(clients, filter(&format!("tag:{TAG_FLEET}"), fleet), fleet).await
}

async fn groups(
    clients: &Clients,
    of: Filter,
    fleet: &str,
) -> Result<Vec<SecurityGroupFact>, AwsError> {
    let pages = clients.ec2.describe_security_groups().filters(of);
    let groups = pages.into_paginator().items().send().try_collect().await;
    let groups = groups.attempted(|| format!("list the security groups of `{fleet}`"))?;
    let groups = groups.iter().map(|group| SecurityGroupFact {
        id: text(group.group_id()),
        name: text(group.group_name()),
        ours: tag_of(group.tags(), TAG_FLEET) == Some(fleet),
        rules: rules(group),
    });
    Ok(by_id(groups.filter(|group| group.name != "default"), |group| &group.id))
}

fn rules(group: &SecurityGroup) -> Vec<Rule> {
    let itself = |permission: &IpPermission| {
        let mut pairs = permission.user_id_group_pairs().iter();
        permission.ip_protocol() == Some(ALL)
            && pairs.any(|pair| pair.group_id() == group.group_id())
    };
    let https = |permission: &&IpPermission| {
        permission.ip_protocol() == Some("tcp")
            && permission.from_port() == Some(443)
            && permission.to_port() == Some(443)
    };
    let ingress = group.ip_permissions().iter();
    let ranges = ingress.filter(https).flat_map(|permission| permission.ip_ranges());
    let mut rules: Vec<Rule> =
        ranges.filter_map(|range| range.cidr_ip()).map(|c| Rule::HttpsFrom(c.into())).collect();
    rules.extend(group.ip_permissions().iter().any(itself).then_some(Rule::FromItself));
    rules.extend(group.ip_permissions_egress().iter().any(itself).then_some(Rule::ToItself));
    rules
}
