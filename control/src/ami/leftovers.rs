//! What a build left behind: found by the tag that everything carries which it runs, whoever it was that
//! died. Look beside remove.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_ec2::types::{Filter, Tag};
use contract::names::TAG_IMAGE_BUILD;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::ami::image::Image;
use crate::ami::prune;
use crate::aws::ec2::filter;
use crate::aws::error::gone;
use crate::aws::poll::{Pace, Waited, patiently, until};
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::stack::{Interrupt, StackError};

/// An instance takes half a minute or so to end.
const ENDS_WITHIN: Duration = Duration::from_secs(300);

/// When a build began, as it ends its name.
pub const STAMP: &str = "%Y%m%dT%H%M%SZ";

/// Twice the longest that a build takes unless the command line says otherwise.
const DEAD_AFTER: SignedDuration = SignedDuration::from_hours(2);

/// What a build left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Leftovers {
    /// Instances that are not ended.
    pub instances: Vec<String>,
    /// Security groups.
    pub security_groups: Vec<String>,
    /// Key pairs.
    pub key_pairs: Vec<String>,
    /// Volumes.
    pub volumes: Vec<String>,
    /// Images, with their snapshots: only of a build that failed.
    pub images: Vec<Image>,
    /// Snapshots of no image: only of a build that failed.
    pub snapshots: Vec<String>,
}

impl Leftovers {
    /// Ids of all of them.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        let images = self.images.iter().map(|image| image.id.clone());
        let kinds = [&self.instances, &self.security_groups, &self.key_pairs, &self.volumes];
        let kinds = kinds.into_iter().chain([&self.snapshots]).flatten().cloned();
        kinds.chain(images).collect()
    }
}

/// Builds that have left something and began so long ago that nobody waits for them any more: whoever ran
/// them died too.
///
/// # Errors
/// When EC2 does not answer.
pub async fn dead(clients: &Clients, now: Timestamp) -> Result<Vec<String>, AwsError> {
    let ec2 = &clients.ec2;
    let ours = || filter("tag-key", TAG_IMAGE_BUILD);
    let attempted = || "look for what builds left".to_owned();
    let living = ["pending", "running", "stopping", "stopped", "shutting-down"].map(str::to_owned);
    let living = Filter::builder().name("instance-state-name").set_values(Some(living.to_vec()));
    let call = ec2.describe_instances().filters(ours()).filters(living.build());
    let found = call.into_paginator().items().send().try_collect().await.attempted(attempted)?;
    let mut tags: Vec<Tag> =
        found.iter().flat_map(|r| r.instances()).flat_map(|i| i.tags()).cloned().collect();
    let call = ec2.describe_security_groups().filters(ours()).into_paginator().items().send();
    tags.extend(
        call.try_collect()
            .await
            .attempted(attempted)?
            .into_iter()
            .flat_map(|g| g.tags.unwrap_or_default()),
    );
    let pairs = ec2.describe_key_pairs().filters(ours()).send().await.attempted(attempted)?;
    tags.extend(pairs.key_pairs().iter().flat_map(|pair| pair.tags()).cloned());
    let call = ec2.describe_volumes().filters(ours()).into_paginator().items().send();
    tags.extend(
        call.try_collect()
            .await
            .attempted(attempted)?
            .into_iter()
            .flat_map(|v| v.tags.unwrap_or_default()),
    );
    let builds = tags.iter().filter(|tag| tag.key() == Some(TAG_IMAGE_BUILD));
    let builds = builds.filter_map(Tag::value).filter(|build| is_long_ago(build, now));
    let builds: BTreeSet<String> = builds.map(str::to_owned).collect();
    Ok(builds.into_iter().collect())
}

/// Whether a build began longer ago than any takes: when it began ends its name.
fn is_long_ago(build: &str, now: Timestamp) -> bool {
    let stamp = build.rsplit('-').next().unwrap_or_default();
    let began = DateTime::strptime(STAMP, stamp).and_then(|time| TimeZone::UTC.to_timestamp(time));
    began.is_ok_and(|began| now.duration_since(began) > DEAD_AFTER)
}

/// What a build has left; `failed`: then what it made is left too.
///
/// # Errors
/// When EC2 does not answer.
pub async fn look(clients: &Clients, build: &str, failed: bool) -> Result<Leftovers, AwsError> {
    let ec2 = &clients.ec2;
    let ours = || filter(&format!("tag:{TAG_IMAGE_BUILD}"), build);
    let attempted = |what: &'static str| move || format!("look for {what} that the build left");
    let living = ["pending", "running", "stopping", "stopped", "shutting-down"].map(str::to_owned);
    let living = Filter::builder().name("instance-state-name").set_values(Some(living.to_vec()));
    let call = ec2.describe_instances().filters(ours()).filters(living.build());
    let found = call.into_paginator().items().send().try_collect().await;
    let found = found.attempted(attempted("instances"))?;
    let instances = found.iter().flat_map(|one| one.instances());
    let mut left = Leftovers {
        instances: instances.filter_map(|one| one.instance_id()).map(str::to_owned).collect(),
        ..Leftovers::default()
    };
    let call = ec2.describe_security_groups().filters(ours()).into_paginator().items().send();
    let groups = call.try_collect().await.attempted(attempted("security groups"))?;
    left.security_groups = groups.into_iter().filter_map(|group| group.group_id).collect();
    let pairs = ec2.describe_key_pairs().filters(ours()).send().await;
    let pairs = pairs.attempted(attempted("key pairs"))?.key_pairs.unwrap_or_default();
    left.key_pairs = pairs.into_iter().filter_map(|pair| pair.key_name).collect();
    let call = ec2.describe_volumes().filters(ours()).into_paginator().items().send();
    let volumes = call.try_collect().await.attempted(attempted("volumes"))?;
    left.volumes = volumes.into_iter().filter_map(|volume| volume.volume_id).collect();
    if failed {
        let call = ec2.describe_images().owners("self").filters(ours());
        let images = call.into_paginator().items().send().try_collect().await;
        let images = images.attempted(attempted("images"))?;
        left.images = images.iter().map(Image::of).collect();
        let call = ec2.describe_snapshots().owner_ids("self").filters(ours());
        let found = call.into_paginator().items().send().try_collect().await;
        let found = found.attempted(attempted("snapshots"))?;
        let of_image = |id: &str| left.images.iter().any(|i| i.snapshots.iter().any(|s| s == id));
        let ids = found.into_iter().filter_map(|snapshot| snapshot.snapshot_id);
        left.snapshots = ids.filter(|id| !of_image(id)).collect();
    }
    Ok(left)
}

/// Removes them: instances first, which hold the rest.
///
/// # Errors
/// EC2's refusal, or what an instance that does not end holds.
pub async fn remove(clients: &Clients, left: &Leftovers) -> Result<(), StackError> {
    let (ec2, pace) = (&clients.ec2, Pace::default());
    // Whoever interrupts a build wants it cleaned up.
    let interrupt = Interrupt::never();
    if !left.instances.is_empty() {
        let call = ec2.terminate_instances().set_instance_ids(Some(left.instances.clone()));
        gone(call.send().await.attempted(|| "terminate the build instance".to_owned()))?;
        let look = async || Ok(ended(clients, &left.instances).await?.then_some(()));
        if until(pace, ENDS_WITHIN, &interrupt, look).await? == Waited::TooLong {
            return Err(AwsError::TimedOut {
                what: format!("the build instance `{}`", left.instances.join("`, `")),
                wanted: "terminated",
                state: "still there".into(),
                seconds: ENDS_WITHIN.as_secs(),
            }
            .into());
        }
    }
    for id in &left.volumes {
        let delete = async || {
            let answer = ec2.delete_volume().volume_id(id).send().await;
            gone(answer.attempted(|| format!("delete the volume `{id}`")))
        };
        patiently(pace, &interrupt, delete).await?;
    }
    for id in &left.security_groups {
        let delete = async || {
            let answer = ec2.delete_security_group().group_id(id).send().await;
            gone(answer.attempted(|| format!("delete the security group `{id}`")))
        };
        patiently(pace, &interrupt, delete).await?;
    }
    for name in &left.key_pairs {
        let answer = ec2.delete_key_pair().key_name(name).send().await;
        gone(answer.attempted(|| format!("delete the key pair `{name}`")))?;
    }
    for image in &left.images {
        prune::remove(clients, image).await?;
    }
    for id in &left.snapshots {
        let answer = ec2.delete_snapshot().snapshot_id(id).send().await;
        gone(answer.attempted(|| format!("delete the snapshot `{id}`")))?;
    }
    Ok(())
}

async fn ended(clients: &Clients, ids: &[String]) -> Result<bool, AwsError> {
    let call = clients.ec2.describe_instances().set_instance_ids(Some(ids.to_vec()));
    let answer = match call.send().await.attempted(|| "look at the build instance".to_owned()) {
        Err(error) if error.is_not_found() => return Ok(true),
        answer => answer?,
    };
    let mut all = answer.reservations().iter().flat_map(|one| one.instances());
    let state = |one: &aws_sdk_ec2::types::Instance| {
        one.state().and_then(|state| state.name()).map(|name| name.as_str().to_owned())
    };
    Ok(all.all(|one| state(one).as_deref() == Some("terminated")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_dead_when_it_began_longer_ago_than_any_takes() {
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        assert!(is_long_ago("rollcall-gpu-1.34-20261121T190000Z", now));
        assert!(!is_long_ago("rollcall-gpu-1.34-20261121T233000Z", now));
        // Somebody's own name for a build says nothing of its age.
        assert!(!is_long_ago("rollcall-mine", now));
    }
}
