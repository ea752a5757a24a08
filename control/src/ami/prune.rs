//! Which images go, and why the others stay. [`plan`] is pure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ami::catalogue::Uses;
use crate::ami::image::Image;
use crate::aws::error::gone;
use crate::aws::{Attempted as _, AwsError, Clients};

/// Images that stay of each definition for being new, unless the command line says otherwise.
pub const KEEP: usize = 3;

/// What becomes of the images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruning {
    /// Those that go, with their snapshots; the oldest first.
    pub remove: Vec<Image>,
    /// Those that stay.
    pub keep: Vec<Kept>,
}

/// An image that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The image.
    pub image: Image,
    /// Why, a fragment.
    pub why: String,
}

/// What becomes of them: what is in a channel stays, and the one before it, for going back; what something
/// uses; and the newest of each definition. `images` are the newest first.
#[must_use]
pub fn plan(images: &[Image], uses: &Uses, keep: usize) -> Pruning {
    let mut pruning = Pruning::default();
    let mut newer: BTreeMap<&str, usize> = BTreeMap::new();
    for image in images {
        let definition = image.definition.as_deref().unwrap_or_default();
        let place = newer.entry(definition).or_default();
        *place += 1;
        let recent = (*place <= keep).then(|| match keep {
            1 => "the newest of its definition".to_owned(),
            _ => format!("one of the {keep} newest of its definition"),
        });
        let channels = image.channels.join(", ");
        let promoted = (!channels.is_empty()).then(|| format!("in channel {channels}"));
        let why =
            promoted.or_else(|| used(image, uses)).or_else(|| before(image, images)).or(recent);
        match why {
            Some(why) => pruning.keep.push(Kept { image: image.clone(), why }),
            None => pruning.remove.push(image.clone()),
        }
    }
    pruning.remove.reverse();
    pruning
}

fn used(image: &Image, uses: &Uses) -> Option<String> {
    let by = uses.get(&image.id)?;
    let first = by.first()?;
    let more = by.len() - 1;
    Some(if more == 0 {
        format!("used by {first}")
    } else {
        format!("used by {first} and {more} more")
    })
}

/// The channel that it was the last but one in.
fn before(image: &Image, images: &[Image]) -> Option<String> {
    let is_before = |channel: &&String| {
        let since = &image.promoted[*channel];
        let others = images.iter().filter(|other| other.id != image.id && other.is_like(image));
        let later =
            others.filter(|other| other.promoted.get(*channel).is_some_and(|at| at > since));
        later.count() == 1
    };
    let channel = image.promoted.keys().find(is_before)?;
    Some(format!("channel {channel} goes back to it"))
}

/// Takes an image off, then its snapshots. What is gone already counts as done.
///
/// # Errors
/// EC2's refusal.
pub async fn remove(clients: &Clients, image: &Image) -> Result<(), AwsError> {
    let id = &image.id;
    let answer = clients.ec2.deregister_image().image_id(id).send().await;
    match gone(answer.attempted(|| format!("deregister the image `{id}`"))) {
        Ok(_) => {}
        // What was deregistered before: EC2 knows it for a while.
        Err(error) if error.code() == Some("InvalidAMIID.Unavailable") => {}
        Err(error) => return Err(error),
    }
    for snapshot in &image.snapshots {
        let answer = clients.ec2.delete_snapshot().snapshot_id(snapshot).send().await;
        gone(answer.attempted(|| format!("delete the snapshot `{snapshot}` of `{id}`")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: &str, definition: &str) -> Image {
        Image { definition: Some(definition.into()), ..Image::example(id) }
    }

    fn went(images: &[Image], uses: &Uses, keep: usize) -> Vec<String> {
        plan(images, uses, keep).remove.into_iter().map(|image| image.id).collect()
    }

    #[test]
    fn the_newest_of_each_definition_stay() {
        let images: Vec<Image> = ["5", "4", "3", "2", "1"].map(|n| of(n, "gpu")).into();
        assert_eq!(went(&images, &Uses::new(), 3), ["1", "2"]);
        assert_eq!(went(&images, &Uses::new(), 0), ["1", "2", "3", "4", "5"]);
        let other = [&images[..], &[of("0", "arm")]].concat();
        assert_eq!(went(&other, &Uses::new(), 3), ["1", "2"], "the only one of another definition");
    }

    #[test]
    fn what_is_promoted_used_or_gone_back_to_stays() {
        let stable = |id: &str, at: &str| of(id, "gpu").promoted("stable", at);
        let mut images = vec![
            stable("5", "t5"),
            stable("4", "t4"),
            stable("3", "t3"),
            of("2", "gpu"),
            of("1", "gpu"),
        ];
        for image in &mut images[1..3] {
            image.channels.clear();
        }
        let uses = Uses::from([(
            "1".to_owned(),
            vec!["instance i-1".to_owned(), "instance i-2".to_owned()],
        )]);
        let pruning = plan(&images, &uses, 0);
        let why: Vec<&str> = pruning.keep.iter().map(|kept| kept.why.as_str()).collect();
        let expected = [
            "in channel stable",
            "channel stable goes back to it",
            "used by instance i-1 and 1 more",
        ];
        assert_eq!(why, expected);
        assert_eq!(went(&images, &uses, 0), ["2", "3"]);
    }
}
