//! Which image of a channel a pool boots. Pure.

use crate::ami::fit::{Need, minor, misfits};
use crate::ami::image::Image;

/// Why a channel has no image for a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoImage {
    /// A sentence without a full stop.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// The image of a channel that a pool boots: of the pool's architecture, with a driver where it has GPUs
/// and without one where there is such an image, of the cluster's Kubernetes version, else of the newest
/// that the cluster takes; of two of a kind the one that was promoted last.
///
/// # Errors
/// [`NoImage`] when the channel has none for such a pool, or none that fits it.
pub fn choose<'a>(
    images: &'a [Image],
    channel: &str,
    pool: &str,
    need: &Need,
) -> Result<&'a Image, NoImage> {
    let of_channel: Vec<&Image> = images.iter().filter(|image| image.is_in(channel)).collect();
    let serves = |image: &&&Image| {
        need.architecture.as_ref().is_none_or(|needs| *needs == image.architecture)
            && (image.has_driver() || !need.gpus)
    };
    let mut serving: Vec<&Image> = of_channel.iter().filter(serves).copied().collect();
    serving.sort_by_key(|image| std::cmp::Reverse(preference(image, channel, need)));
    let fitting = serving.iter().find(|image| misfits(image, need).is_empty());
    fitting.copied().ok_or_else(|| refusal(&of_channel, &serving, channel, pool, need))
}

/// The greatest is taken.
fn preference<'a>(
    image: &'a Image,
    channel: &str,
    need: &Need,
) -> (bool, u32, bool, &'a str, &'a str) {
    let version = image.kubernetes.as_deref();
    (
        version == Some(&need.kubernetes),
        version.and_then(minor).unwrap_or(0),
        image.has_driver() == need.gpus,
        image.promoted.get(channel).map_or("", String::as_str),
        &image.id,
    )
}

fn refusal(all: &[&Image], serving: &[&Image], channel: &str, pool: &str, need: &Need) -> NoImage {
    let version = &need.kubernetes;
    let hint = format!(
        "bake one of Kubernetes {version} and promote it: control ami bake amis/NAME.yaml, control ami \
         promote {channel} IMAGE"
    );
    let what = match (&need.architecture, need.gpus) {
        (Some(architecture), true) => format!("{architecture} with NVIDIA's driver"),
        (Some(architecture), false) => architecture.clone(),
        (None, _) => need.instance_type.clone(),
    };
    let message = if all.is_empty() {
        format!("pool `{pool}`: no image is in the channel `{channel}`")
    } else if serving.is_empty() {
        let there: Vec<String> = all.iter().map(|image| said(image)).collect();
        let there = there.join(", ");
        format!("pool `{pool}`: channel `{channel}` has no image for {what}; it has {there}")
    } else {
        let why = serving.iter().flat_map(|image| misfits(image, need));
        let why: Vec<String> = why.map(|misfit| misfit.message).collect();
        format!("pool `{pool}`: channel `{channel}` has no image that fits: {}", why.join("; "))
    };
    NoImage { message, hint }
}

fn said(image: &Image) -> String {
    let version = image.kubernetes.as_deref().unwrap_or("?");
    let driver = if image.has_driver() { "" } else { " without a driver" };
    format!("{} ({version}, {}{driver})", image.id, image.architecture)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need() -> Need {
        Need {
            kubernetes: "1.34".into(),
            instance_type: "p5.48xlarge".into(),
            architecture: Some("x86_64".into()),
            gpus: true,
            model: Some("H100".into()),
            volume_gib: 200,
            baked: true,
        }
    }

    fn of(id: &str, version: &str) -> Image {
        let image = Image { kubernetes: Some(version.into()), ..Image::example(id) };
        image.promoted("stable", "2026-11-20T12:00:00Z")
    }

    fn chosen(images: &[Image], need: &Need) -> Result<String, String> {
        let chosen = choose(images, "stable", "h100", need);
        chosen.map(|image| image.id.clone()).map_err(|none| none.message)
    }

    #[test]
    fn the_cluster_s_own_version_is_taken() {
        let images = [of("ami-33", "1.33"), of("ami-34", "1.34"), of("ami-35", "1.35")];
        assert_eq!(chosen(&images, &need()), Ok("ami-34".into()));
        // None of the cluster's own: the newest that it takes, and never a newer one.
        let without = [of("ami-32", "1.32"), of("ami-33", "1.33"), of("ami-35", "1.35")];
        assert_eq!(chosen(&without, &need()), Ok("ami-33".into()));
    }

    #[test]
    fn one_that_does_not_fit_is_refused_with_the_reason() {
        let said = chosen(&[of("ami-35", "1.35")], &need()).unwrap_err();
        let why = "pool `h100`: channel `stable` has no image that fits: `ami-35` has Kubernetes 1.35, \
                   and the cluster 1.34: kubelet is never newer than the API server";
        assert_eq!(said, why);
        let old = chosen(&[of("ami-30", "1.30")], &need()).unwrap_err();
        assert!(old.contains("4 minor versions behind"), "{old}");
    }

    #[test]
    fn channel_and_architecture_are_kept_apart() {
        let beta = Image::example("ami-b").promoted("beta", "2026-11-21T00:00:00Z");
        let arm = Image { architecture: "arm64".into(), ..of("ami-arm", "1.34") };
        assert_eq!(
            chosen(std::slice::from_ref(&beta), &need()),
            Err("pool `h100`: no image is in the channel `stable`".into())
        );
        let said = chosen(&[beta.clone(), arm.clone()], &need()).unwrap_err();
        assert!(
            said.ends_with(
                "no image for x86_64 with NVIDIA's driver; it has ami-arm (1.34, arm64)"
            ),
            "{said}"
        );
        let images = [beta, arm, of("ami-x", "1.34")];
        let arm64 = Need { architecture: Some("arm64".into()), ..need() };
        assert_eq!(chosen(&images, &arm64), Ok("ami-arm".into()));
    }

    #[test]
    fn pools_without_gpus_take_an_image_without_a_driver_if_there_is_one() {
        let plain = Need { gpus: false, model: None, instance_type: "m7i.large".into(), ..need() };
        let slim = Image { driver: Some("none".into()), ..of("ami-slim", "1.34") };
        let images = [of("ami-gpu", "1.34"), slim.clone()];
        assert_eq!(chosen(&images, &plain), Ok("ami-slim".into()));
        assert_eq!(chosen(&images[..1], &plain), Ok("ami-gpu".into()));
        assert!(chosen(&[slim], &need()).unwrap_err().contains("without a driver"));
    }

    /// A promotion that was killed half way leaves two images of a kind in the channel.
    #[test]
    fn of_two_of_a_kind_the_one_that_was_promoted_last_is_taken() {
        let late = Image::example("ami-a").promoted("stable", "2026-11-21T00:00:00Z");
        // Promoted elsewhere since: that counts for nothing here.
        let early = of("ami-z", "1.34").promoted("beta", "2026-11-22T00:00:00Z");
        assert_eq!(chosen(&[early.clone(), late.clone()], &need()), Ok("ami-a".into()));
        assert_eq!(chosen(&[late, early], &need()), Ok("ami-a".into()));
    }
}
