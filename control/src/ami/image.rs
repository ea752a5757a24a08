//! An image as its own tags tell of it.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::Image as Described;
use contract::names::{
    TAG_IMAGE, TAG_IMAGE_AGENT, TAG_IMAGE_AGENT_SHA256, TAG_IMAGE_BUILD, TAG_IMAGE_CHANNEL,
    TAG_IMAGE_DRIVER, TAG_IMAGE_KUBERNETES, TAG_IMAGE_PROMOTED, TAG_IMAGE_SOURCE,
    TAG_IMAGE_VERIFIED,
};
use serde::Serialize;

use crate::ami::definition::NO_DRIVER;
use crate::aws::ec2::tag_of;

/// An image. What its tags do not tell is none: others' images have none of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// `available`, `pending`, `failed`, …
    pub state: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// When it was made, RFC 3339 in UTC.
    pub created: String,
    /// What a root volume must hold.
    pub gib: u32,
    /// Its snapshots.
    pub snapshots: Vec<String>,
    /// Name of its definition.
    pub definition: Option<String>,
    /// Kubernetes minor version.
    pub kubernetes: Option<String>,
    /// Branch of NVIDIA's driver, or `none`.
    pub driver: Option<String>,
    /// The agent's version.
    pub agent: Option<String>,
    /// SHA-256 of the agent's tarball.
    pub agent_sha256: Option<String>,
    /// The image that it was made from.
    pub source: Option<String>,
    /// The build that made it.
    pub build: Option<String>,
    /// When what is in it was found to be what was asked for.
    pub verified: Option<String>,
    /// The channels that it is in, sorted.
    pub channels: Vec<String>,
    /// When it was last promoted, by channel: those that it is not in any more too.
    pub promoted: BTreeMap<String, String>,
}

impl Image {
    /// What EC2 says of an image.
    #[must_use]
    pub fn of(described: &Described) -> Self {
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let tag = |key: &str| tag_of(described.tags(), key).map(str::to_owned);
        let disks = described.block_device_mappings().iter().filter_map(|one| one.ebs());
        let sizes = disks.clone().filter_map(|disk| disk.volume_size());
        Self {
            id: text(described.image_id()),
            name: text(described.name()),
            state: text(described.state().map(|state| state.as_str())),
            architecture: text(described.architecture().map(|one| one.as_str())),
            created: text(described.creation_date()),
            gib: sizes.max().unwrap_or(0).unsigned_abs(),
            snapshots: disks.filter_map(|disk| disk.snapshot_id()).map(str::to_owned).collect(),
            definition: tag(TAG_IMAGE),
            kubernetes: tag(TAG_IMAGE_KUBERNETES),
            driver: tag(TAG_IMAGE_DRIVER),
            agent: tag(TAG_IMAGE_AGENT),
            agent_sha256: tag(TAG_IMAGE_AGENT_SHA256),
            source: tag(TAG_IMAGE_SOURCE),
            build: tag(TAG_IMAGE_BUILD),
            verified: tag(TAG_IMAGE_VERIFIED),
            channels: words(&tag(TAG_IMAGE_CHANNEL).unwrap_or_default()),
            promoted: times(&tag(TAG_IMAGE_PROMOTED).unwrap_or_default()),
        }
    }

    /// Whether it has NVIDIA's driver, as far as its tags tell.
    #[must_use]
    pub fn has_driver(&self) -> bool {
        self.driver.as_deref().is_some_and(|branch| branch != NO_DRIVER)
    }

    /// Whether it is in a channel.
    #[must_use]
    pub fn is_in(&self, channel: &str) -> bool {
        self.channels.iter().any(|known| known == channel)
    }

    /// Whether another one serves the same pools: for two such images a channel has one place.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.architecture == other.architecture
            && self.kubernetes == other.kubernetes
            && self.has_driver() == other.has_driver()
    }
}

fn words(value: &str) -> Vec<String> {
    let mut words: Vec<String> = value.split_whitespace().map(str::to_owned).collect();
    words.sort();
    words.dedup();
    words
}

fn times(value: &str) -> BTreeMap<String, String> {
    let pairs = value.split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs.map(|(channel, time)| (channel.to_owned(), time.to_owned())).collect()
}

/// The value of [`TAG_IMAGE_PROMOTED`].
#[must_use]
pub fn promoted_value(times: &BTreeMap<String, String>) -> String {
    let pairs = times.iter().map(|(channel, time)| format!("{channel}={time}"));
    pairs.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
impl Image {
    /// An image for GPU workers, as `bake` leaves it.
    pub(crate) fn example(id: &str) -> Self {
        let some = |text: &str| Some(text.to_owned());
        Self {
            id: id.into(),
            name: format!("rollcall-{id}"),
            state: "available".into(),
            architecture: "x86_64".into(),
            created: "2026-11-20T10:00:00.000Z".into(),
            gib: 30,
            snapshots: vec![format!("snap-of-{id}")],
            definition: some("al2023-nvidia-1.34-x86_64"),
            kubernetes: some("1.34"),
            driver: some("580"),
            agent: some(env!("CARGO_PKG_VERSION")),
            agent_sha256: some(&"ab".repeat(32)),
            source: some("ami-0123456789abcdef0"),
            build: some("al2023-nvidia-1.34-x86_64-20261120T100000Z"),
            verified: some("2026-11-20T10:12:00Z"),
            ..Self::default()
        }
    }

    /// The same in a channel since then.
    pub(crate) fn promoted(mut self, channel: &str, since: &str) -> Self {
        self.channels.push(channel.into());
        self.channels.sort();
        self.promoted.insert(channel.into(), since.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::Tag;

    use super::*;

    #[test]
    fn what_tags_tell_is_read_back() {
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
        let image = Image::example("ami-1").promoted("stable", "t1").promoted("beta", "t2");
        let described = Described::builder()
            .image_id("ami-1")
            .tags(tag(TAG_IMAGE_CHANNEL, &image.channels.join(" ")))
            .tags(tag(TAG_IMAGE_PROMOTED, &promoted_value(&image.promoted)))
            .tags(tag(TAG_IMAGE_DRIVER, "none"));
        let read = Image::of(&described.build());
        assert_eq!((read.channels, read.promoted), (image.channels, image.promoted));
        assert_eq!(read.verified, None);
        assert!(!Image { driver: read.driver, ..Image::default() }.has_driver());
        assert!(image.driver.is_some());
    }
}
