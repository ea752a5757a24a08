//! An image into a channel, in the place of the one before. [`plan`] is pure.
//!
//! EC2 changes the tags of one resource at a time: the new one gets the channel first, then the former
//! loses it. In between there are two, of which [`crate::ami::choose`] takes the one that was promoted
//! last; so no fleet is ever without an image, and a promotion that was killed is ended by the same
//! command again.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::Tag;
use contract::ExitCode;
use contract::names::{TAG_IMAGE_CHANNEL, TAG_IMAGE_PROMOTED};
use serde::Serialize;

use crate::ami::image::{Image, promoted_value};
use crate::aws::{Attempted as _, AwsError, Clients, ec2};
use crate::failure::Stated;

/// The most characters that EC2 takes in a tag's value.
const TAG_VALUE_MAX: usize = 256;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Promotion {
    /// The channel.
    pub channel: String,
    /// The image.
    pub image: String,
    /// The images of its kind that were in the channel.
    pub instead_of: Vec<String>,
    /// Tags by image, in the order in which they are put on; an empty channel tag is taken off.
    #[serde(skip)]
    pub tags: Vec<(String, BTreeMap<&'static str, String>)>,
}

impl Promotion {
    /// Whether the channel has it already, and nothing else.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.tags.is_empty()
    }
}

/// How an image comes into a channel at that time. `all` are the images there are.
///
/// # Errors
/// When it was never verified, unless `force`; or cannot be launched.
pub fn plan(
    all: &[Image],
    image: &Image,
    channel: &str,
    now: &str,
    force: bool,
) -> Result<Promotion, Stated> {
    let refuse = |message: String, hint: &str| {
        Err(Stated::new(ExitCode::PreflightBlocked, message).with_hint(hint))
    };
    if image.state != "available" {
        return refuse(format!("`{}` is {}", image.id, image.state), "control ami list");
    }
    if image.verified.is_none() && !force {
        let what = "was never verified: nothing says that it has what its tags tell";
        let hint = "bake it with `control ami bake`, or say --force";
        return refuse(format!("`{}` {what}", image.id), hint);
    }
    let former: Vec<&Image> = all
        .iter()
        .filter(|other| other.id != image.id && other.is_in(channel) && other.is_like(image))
        .collect();
    let mut tags = Vec::new();
    if !image.is_in(channel) || !former.is_empty() {
        tags.push((image.id.clone(), joined(image, channel, now)));
        tags.extend(former.iter().map(|other| (other.id.clone(), left(other, channel))));
    }
    if tags.iter().flat_map(|(_, tags)| tags.values()).any(|value| value.len() > TAG_VALUE_MAX) {
        let what = format!("`{}` is in so many channels that no tag holds their names", image.id);
        return refuse(what, "promote it in fewer of them");
    }
    Ok(Promotion {
        channel: channel.to_owned(),
        image: image.id.clone(),
        instead_of: former.iter().map(|other| other.id.clone()).collect(),
        tags,
    })
}

fn joined(image: &Image, channel: &str, now: &str) -> BTreeMap<&'static str, String> {
    let mut channels = image.channels.clone();
    if !image.is_in(channel) {
        channels.push(channel.to_owned());
        channels.sort();
    }
    let mut promoted = image.promoted.clone();
    promoted.insert(channel.to_owned(), now.to_owned());
    BTreeMap::from([
        (TAG_IMAGE_CHANNEL, channels.join(" ")),
        (TAG_IMAGE_PROMOTED, promoted_value(&promoted)),
    ])
}

fn left(image: &Image, channel: &str) -> BTreeMap<&'static str, String> {
    let rest = image.channels.iter().filter(|known| *known != channel).cloned();
    BTreeMap::from([(TAG_IMAGE_CHANNEL, rest.collect::<Vec<_>>().join(" "))])
}

/// Does it.
///
/// # Errors
/// EC2's refusal. Run it again: what is done already stays.
pub async fn apply(clients: &Clients, promotion: &Promotion) -> Result<(), AwsError> {
    for (image, tags) in &promotion.tags {
        let (taken, put): (BTreeMap<_, _>, BTreeMap<_, _>) =
            tags.iter().partition(|(_, value)| value.is_empty());
        let attempted = || format!("change the channels of `{image}`");
        if !put.is_empty() {
            let put = put.into_iter().map(|(key, value)| (key.to_string(), value.clone()));
            let call = clients.ec2.create_tags().resources(image);
            let call = call.set_tags(Some(ec2::tags(&put.collect())));
            call.send().await.attempted(attempted)?;
        }
        if !taken.is_empty() {
            let taken = taken.into_keys().map(|key| Tag::builder().key(*key).build());
            let call = clients.ec2.delete_tags().resources(image);
            call.set_tags(Some(taken.collect())).send().await.attempted(attempted)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-21T23:36:35Z";

    fn stable(id: &str) -> Image {
        Image::example(id).promoted("stable", "2026-11-01T00:00:00Z")
    }

    /// The images as they are after a promotion, or after its first steps.
    fn after(all: &[Image], promotion: &Promotion, steps: usize) -> Vec<Image> {
        let mut all = all.to_vec();
        for (id, tags) in promotion.tags.iter().take(steps) {
            let image = all.iter_mut().find(|image| image.id == *id).unwrap();
            if let Some(channels) = tags.get(TAG_IMAGE_CHANNEL) {
                image.channels = channels.split_whitespace().map(str::to_owned).collect();
            }
            if let Some(promoted) = tags.get(TAG_IMAGE_PROMOTED) {
                let pairs = promoted.split(' ').map(|pair| pair.split_once('=').unwrap());
                image.promoted = pairs.map(|(c, t)| (c.to_owned(), t.to_owned())).collect();
            }
        }
        all
    }

    #[test]
    fn the_new_one_takes_the_channel_from_the_one_before() {
        let arm = Image { architecture: "arm64".into(), ..stable("ami-arm") };
        let older = Image { kubernetes: Some("1.33".into()), ..stable("ami-33") };
        let all = [stable("ami-1"), Image::example("ami-2"), arm, older];
        let promotion = plan(&all, &all[1], "stable", NOW, false).unwrap();
        // Of another architecture or version is another place.
        assert_eq!(promotion.instead_of, ["ami-1"]);
        let after = after(&all, &promotion, 2);
        assert!(!after[0].is_in("stable") && after[1].is_in("stable"));
        assert!(after[2].is_in("stable") && after[3].is_in("stable"));
        // When it was there stays known: that is what going back is told from.
        assert_eq!(after[0].promoted["stable"], "2026-11-01T00:00:00Z");
        assert!(plan(&after, &after[1], "stable", NOW, false).unwrap().is_done());
        // Going back is promoting the earlier one.
        let back = plan(&after, &after[0], "stable", NOW, false).unwrap();
        assert_eq!(back.instead_of, ["ami-2"]);
    }

    #[test]
    fn killed_half_way_it_is_ended_by_the_same_command() {
        let all = [stable("ami-1"), Image::example("ami-2")];
        let promotion = plan(&all, &all[1], "stable", NOW, false).unwrap();
        let half = after(&all, &promotion, 1);
        assert!(half[0].is_in("stable") && half[1].is_in("stable"));
        let again = plan(&half, &half[1], "stable", NOW, false).unwrap();
        assert_eq!(again.instead_of, ["ami-1"]);
        assert!(!after(&half, &again, 2)[0].is_in("stable"));
    }

    #[test]
    fn an_image_stays_in_its_other_channels() {
        let all =
            [stable("ami-1").promoted("beta", "2026-11-02T00:00:00Z"), Image::example("ami-2")];
        let promotion = plan(&all, &all[1], "stable", NOW, false).unwrap();
        let after = after(&all, &promotion, 2);
        assert_eq!(after[0].channels, ["beta"]);
        assert_eq!(after[1].channels, ["stable"]);
    }

    #[test]
    fn one_that_was_never_verified_is_refused_unless_forced() {
        let image = Image { verified: None, ..Image::example("ami-1") };
        let refused = plan(&[], &image, "stable", NOW, false).unwrap_err();
        assert!(
            refused.message.contains("never verified") && refused.hint.unwrap().contains("--force")
        );
        assert!(plan(&[], &image, "stable", NOW, true).is_ok());
        let pending = Image { state: "pending".into(), ..Image::example("ami-1") };
        assert!(plan(&[], &pending, "stable", NOW, true).is_err());
    }
}
