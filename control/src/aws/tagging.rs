//! Tags that are put on what is there already, the way each service has for it.

use std::collections::BTreeMap;

use aws_sdk_autoscaling::types::Tag as ScalingTag;
use aws_sdk_iam::types::Tag as IamTag;

use crate::aws::error::gone;
use crate::aws::{Attempted as _, AwsError, Clients, ec2};

/// Keys and values.
pub type Tags = BTreeMap<String, String>;

/// Resources per CreateTags (EC2 API reference).
const PER_CALL: usize = 1000;

/// What carries tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Things of EC2, by id.
    Ec2(Vec<String>),
    /// Something of EKS, by ARN.
    Eks(String),
    /// A role, by name.
    Role(String),
    /// An Auto Scaling group, by name: instances that it launches from now on carry them too, before
    /// those of its launch template.
    Scaling(String),
}

/// The tags that are not there as asked. What else is there is somebody's, and stays.
#[must_use]
pub fn missing(wanted: &Tags, found: &Tags) -> Tags {
    let differs = |(key, value): &(&String, &String)| found.get(*key) != Some(*value);
    wanted.iter().filter(differs).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Puts tags.
///
/// # Errors
/// AWS's refusal.
pub async fn put(clients: &Clients, holder: &Holder, tags: &Tags) -> Result<(), AwsError> {
    match holder {
        Holder::Ec2(ids) => {
            for ids in ids.chunks(PER_CALL) {
                match in_ec2(clients, ids, tags).await {
                    // One of them has gone meanwhile, and EC2 has tagged none: each by itself.
                    Err(error) if error.is_not_found() => {
                        for id in ids {
                            gone(in_ec2(clients, std::slice::from_ref(id), tags).await)?;
                        }
                    }
                    answer => answer?,
                }
            }
            Ok(())
        }
        Holder::Eks(arn) => {
            let call = clients.eks.tag_resource().resource_arn(arn);
            let answer = call.set_tags(Some(tags.clone().into_iter().collect())).send().await;
            answer.attempted(|| format!("tag `{arn}`")).map(drop)
        }
        Holder::Role(name) => {
            let call = clients.iam.tag_role().role_name(name).set_tags(Some(of_iam(tags)?));
            call.send().await.attempted(|| format!("tag the role `{name}`")).map(drop)
        }
        Holder::Scaling(group) => {
            let tag = |(key, value): (&String, &String)| {
                let tag = ScalingTag::builder().resource_type("auto-scaling-group");
                let tag = tag.resource_id(group).propagate_at_launch(true);
                tag.key(key).value(value).build()
            };
            let call = clients.autoscaling.create_or_update_tags();
            let call = call.set_tags(Some(tags.iter().map(tag).collect()));
            call.send().await.attempted(|| format!("tag the scaling group `{group}`")).map(drop)
        }
    }
}

async fn in_ec2(clients: &Clients, ids: &[String], tags: &Tags) -> Result<(), AwsError> {
    let call = clients.ec2.create_tags().set_resources(Some(ids.to_vec()));
    let answer = call.set_tags(Some(ec2::tags(tags))).send().await;
    answer.attempted(|| format!("tag `{}`", ids.join("`, `"))).map(drop)
}

/// IAM's form of tags.
///
/// # Errors
/// When a tag has no key.
pub fn of_iam(tags: &Tags) -> Result<Vec<IamTag>, AwsError> {
    let built = tags.iter().map(|(key, value)| IamTag::builder().key(key).value(value).build());
    built.collect::<Result<_, _>>().map_err(|_| AwsError::Incomplete {
        attempted: "tag a role".into(),
        missing: "key or value",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_put() {
        let tags = |pairs: &[(&str, &str)]| -> Tags {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let found = tags(&[("a", "1"), ("b", "2"), ("aws:x", "theirs")]);
        assert_eq!(
            missing(&tags(&[("a", "1"), ("b", "3"), ("c", "4")]), &found),
            tags(&[("b", "3"), ("c", "4")])
        );
        assert!(missing(&tags(&[("a", "1")]), &found).is_empty());
    }
}
