//! Security groups and their rules.

use aws_sdk_ec2::types::{IpPermission, IpRange, ResourceType, UserIdGroupPair};

use super::{Applied, Result, deletion, must};
use crate::aws::Attempted as _;
use crate::aws::adopt::adopt_or_create;
use crate::aws::ec2::tagged;
use crate::aws::error::{already, gone};
use crate::layers::network::desired::{GroupWish, Rule};
use crate::layers::network::observe::groups::{ALL, security_groups_of};
use crate::layers::network::observe::{NetworkFacts, SecurityGroupFact};
use crate::layers::network::plan::Tags;
use crate::stack::World;

pub(super) async fn create(
    world: &World,
    wish: &GroupWish,
    tags: &Tags,
    vpc: &str,
) -> Result<Applied<NetworkFacts>> {
    let (clients, fleet, name) = (&world.clients, &world.scope.fleet, wish.name.as_str());
    let what = format!("create the security group `{name}`");
    let (id, outcome) = adopt_or_create(
        world.pace,
        async || {
            let groups = security_groups_of(clients, fleet).await?;
            Ok(groups.into_iter().filter(|group| group.name == name).map(|g| g.id).collect())
        },
        async || {
            let call = clients.ec2.create_security_group().vpc_id(vpc).group_name(name);
            let call = call.description(wish.about);
            let call = call.tag_specifications(tagged(ResourceType::SecurityGroup, tags));
            let answer = call.send().await.attempted(|| what.clone())?;
            must(answer.group_id, &what, "group id")
        },
        async |id| {
            let call = clients.ec2.delete_security_group().group_id(id).send().await;
            gone(call.attempted(|| deletion("security group", id))).map(drop)
        },
    )
    .await?;
    let fact = SecurityGroupFact { id, name: wish.name.clone(), ours: true, rules: Vec::new() };
    Ok(Applied { outcome, learn: Box::new(move |facts| facts.security_groups.push(fact)) })
}

pub(super) async fn allow(
    world: &World,
    group: &str,
    rule: &Rule,
) -> Result<Applied<NetworkFacts>> {
    let ec2 = &world.clients.ec2;
    let itself = || {
        let pair = UserIdGroupPair::builder().group_id(group).build();
        IpPermission::builder().ip_protocol(ALL).user_id_group_pairs(pair).build()
    };
    let what = || format!("allow {} in the security group `{group}`", rule.label());
    let answer = match rule {
        Rule::HttpsFrom(cidr) => {
            let range = IpRange::builder().cidr_ip(cidr).build();
            let permission = IpPermission::builder().ip_protocol("tcp").from_port(443);
            let permission = permission.to_port(443).ip_ranges(range).build();
            let call = ec2.authorize_security_group_ingress().group_id(group);
            call.ip_permissions(permission).send().await.attempted(what).map(drop)
        }
        Rule::FromItself => {
            let call = ec2.authorize_security_group_ingress().group_id(group);
            call.ip_permissions(itself()).send().await.attempted(what).map(drop)
        }
        Rule::ToItself => {
            let call = ec2.authorize_security_group_egress().group_id(group);
            call.ip_permissions(itself()).send().await.attempted(what).map(drop)
        }
    };
    // A retry of a lost answer finds it there.
    Ok(Applied::ended(already(answer, "InvalidPermission.Duplicate")?))
}
