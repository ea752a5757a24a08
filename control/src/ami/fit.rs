//! Whether an image fits a pool: all that stands against it at once. Pure.

use contract::driver::{first_branch, last_branch};
use serde::Serialize;

use crate::ami::image::Image;
use crate::aws::ec2::TypeFacts;
use crate::config::FleetSpec;
use crate::config::spec::{AgentSource, PoolSpec};

/// kubelet may be so many minor versions older than the API server, and never newer
/// (kubernetes.io, "Version Skew Policy").
pub const SKEW_MAX: u32 = 3;

/// What the names of EKS's own images begin with: there is no agent in them.
const STOCK: &str = "amazon-eks-node-";

/// What a pool needs of its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The cluster's Kubernetes minor version.
    pub kubernetes: String,
    /// Its instance type.
    pub instance_type: String,
    /// `x86_64` or `arm64`; none when EC2 does not know the type.
    pub architecture: Option<String>,
    /// Whether the type has NVIDIA's GPUs.
    pub gpus: bool,
    /// Their model.
    pub model: Option<String>,
    /// The pool's root volume.
    pub volume_gib: u32,
    /// Whether the image must have the agent.
    pub baked: bool,
}

impl Need {
    /// What a pool of a fleet needs.
    #[must_use]
    pub fn of(spec: &FleetSpec, pool: &PoolSpec, kind: Option<&TypeFacts>) -> Self {
        let gpus = kind.and_then(|kind| kind.gpus.as_ref());
        Self {
            kubernetes: spec.kubernetes.clone(),
            instance_type: pool.instance_type.clone(),
            architecture: kind.map(|kind| kind.architecture.clone()),
            gpus: gpus.is_some(),
            model: gpus.and_then(|gpus| gpus.model.clone()),
            volume_gib: pool.volume_gib,
            baked: spec.agent == AgentSource::Baked,
        }
    }
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Rule {
    /// It cannot be launched.
    State,
    /// For another processor.
    Architecture,
    /// kubelet is newer than the API server, or too old for it.
    Kubernetes,
    /// It has no driver, or one that does not know the GPU.
    Driver,
    /// The agent is not in it, or is another than this `control` writes configurations for.
    Agent,
    /// Larger than the pool's root volume.
    Volume,
}

/// Something that stands against an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Misfit {
    /// Which rule is broken.
    pub rule: Rule,
    /// How, a sentence without a full stop.
    pub message: String,
}

impl Misfit {
    /// The pool's field that it is about.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        match self.rule {
            Rule::Volume => "volumeGiB",
            Rule::State | Rule::Architecture | Rule::Kubernetes | Rule::Driver | Rule::Agent => {
                "image"
            }
        }
    }
}

/// All that stands against an image in a pool. What its tags do not tell stands against nothing: somebody
/// may have put the agent into an image in a way of their own.
#[must_use]
pub fn misfits(image: &Image, need: &Need) -> Vec<Misfit> {
    let found = [
        state(image).map(|message| (Rule::State, message)),
        architecture(image, need).map(|message| (Rule::Architecture, message)),
        kubernetes(image, need).map(|message| (Rule::Kubernetes, message)),
        driver(image, need).map(|message| (Rule::Driver, message)),
        agent(image, need).map(|message| (Rule::Agent, message)),
        volume(image, need).map(|message| (Rule::Volume, message)),
    ];
    found.into_iter().flatten().map(|(rule, message)| Misfit { rule, message }).collect()
}

fn state(image: &Image) -> Option<String> {
    (image.state != "available").then(|| format!("`{}` is {}", image.id, image.state))
}

fn architecture(image: &Image, need: &Need) -> Option<String> {
    let needs = need.architecture.as_ref().filter(|needs| **needs != image.architecture)?;
    let (id, is, kind) = (&image.id, &image.architecture, &need.instance_type);
    Some(format!("`{id}` is for {is}, and `{kind}` is {needs}"))
}

/// The minor version: `1.34` → 34.
pub(crate) fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("1.")?.split('.').next()?.parse().ok()
}

fn kubernetes(image: &Image, need: &Need) -> Option<String> {
    let (has, cluster) = (image.kubernetes.as_deref()?, &need.kubernetes);
    let (node, api) = (minor(has)?, minor(cluster)?);
    let id = &image.id;
    if node > api {
        let rule = "kubelet is never newer than the API server";
        return Some(format!("`{id}` has Kubernetes {has}, and the cluster {cluster}: {rule}"));
    }
    let behind = api - node;
    let rule = format!("{behind} minor versions behind, and {SKEW_MAX} at most go");
    let message = format!("`{id}` has Kubernetes {has}, and the cluster {cluster}: {rule}");
    (behind > SKEW_MAX).then_some(message)
}

fn driver(image: &Image, need: &Need) -> Option<String> {
    let has = image.driver.as_deref().filter(|_| need.gpus)?;
    let (id, kind) = (&image.id, &need.instance_type);
    let Ok(branch) = has.parse::<u32>() else {
        return Some(format!("`{id}` has no NVIDIA driver, and `{kind}` has GPUs"));
    };
    let model = need.model.as_deref()?;
    let first = first_branch(model).filter(|first| branch < *first);
    let last = last_branch(model).filter(|last| branch > *last);
    let rule = match (first, last) {
        (Some(first), _) => format!("is known to branch {first} and later"),
        (None, Some(last)) => format!("is known to branch {last} and earlier"),
        (None, None) => return None,
    };
    Some(format!("`{id}` has driver branch {branch}, and {model} of `{kind}` {rule}"))
}

/// Of one minor version `control` writes no field that the agent does not know, and refuses.
fn agent(image: &Image, need: &Need) -> Option<String> {
    let (id, ours) = (&image.id, env!("CARGO_PKG_VERSION"));
    if !need.baked {
        return None;
    }
    let Some(has) = image.agent.as_deref() else {
        let stock = image.name.starts_with(STOCK);
        let none = format!("`{id}` has no agent, and the fleet says `agent: {{baked: true}}`");
        return (stock || image.definition.is_some()).then_some(none);
    };
    let series = |version: &str| -> Option<(u32, u32)> {
        let mut parts = version.split('.').map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    let rule = "it may not know what this `control` writes";
    let message = format!("`{id}` has agent {has}, older than {ours}: {rule}");
    (series(has) < series(ours)).then_some(message)
}

fn volume(image: &Image, need: &Need) -> Option<String> {
    let (id, gib, volume) = (&image.id, image.gib, need.volume_gib);
    (gib > volume).then(|| format!("{volume} is less than `{id}` holds, {gib}"))
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

    #[test]
    fn what_was_baked_for_a_pool_fits_it() {
        assert_eq!(misfits(&Image::example("ami-1"), &need()), []);
        // As the control plane goes first, nodes are one behind for a while.
        let ahead = Need { kubernetes: "1.37".into(), ..need() };
        assert_eq!(misfits(&Image::example("ami-1"), &ahead), []);
        // Somebody's own image: what is in it is not known.
        let theirs = Image { state: "available".into(), ..Image::default() };
        let unknown = Need { architecture: None, ..need() };
        assert_eq!(misfits(&theirs, &unknown), []);
        let stock = Image { name: "amazon-eks-node-al2023-x86_64-nvidia-1.34-v1".into(), ..theirs };
        assert_eq!(misfits(&stock, &unknown)[0].rule, Rule::Agent);
        assert_eq!(misfits(&stock, &Need { baked: false, ..unknown }), []);
    }

    type Bend = fn(&mut Image, &mut Need);

    /// What is bent, and what must be said: that and nothing else.
    const BENT: [(Bend, Rule, &str); 11] = [
        (|i, _| i.state = "pending".into(), Rule::State, "`ami-1` is pending"),
        (
            |i, _| i.architecture = "arm64".into(),
            Rule::Architecture,
            "`ami-1` is for arm64, and `p5.48xlarge` is x86_64",
        ),
        (
            |_, n| n.kubernetes = "1.33".into(),
            Rule::Kubernetes,
            "has Kubernetes 1.34, and the cluster 1.33: kubelet is never newer",
        ),
        (
            |_, n| n.kubernetes = "1.38".into(),
            Rule::Kubernetes,
            "and the cluster 1.38: 4 minor versions behind, and 3 at most go",
        ),
        (
            |i, _| i.driver = Some("none".into()),
            Rule::Driver,
            "has no NVIDIA driver, and `p5.48xlarge` has GPUs",
        ),
        (
            |_, n| n.model = Some("RTX PRO 4500".into()),
            Rule::Driver,
            "is known to branch 595 and later",
        ),
        (
            |i, n| {
                i.driver = Some("595".into());
                n.model = Some("V100".into())
            },
            Rule::Driver,
            "V100 of `p5.48xlarge` is known to branch 580 and earlier",
        ),
        (|i, _| i.agent = None, Rule::Agent, "`ami-1` has no agent, and the fleet says"),
        (|i, _| i.agent = Some("0.0.9".into()), Rule::Agent, "has agent 0.0.9, older than"),
        (|_, n| n.volume_gib = 20, Rule::Volume, "20 is less than `ami-1` holds, 30"),
        (|i, _| i.state = "disabled".into(), Rule::State, "`ami-1` is disabled"),
    ];

    #[test]
    fn each_misfit_is_named() {
        for (bend, rule, expected) in BENT {
            let (mut image, mut need) = (Image::example("ami-1"), need());
            bend(&mut image, &mut need);
            let found = misfits(&image, &need);
            assert_eq!(found.len(), 1, "{expected}: {found:?}");
            assert_eq!(found[0].rule, rule);
            assert!(found[0].message.contains(expected), "{expected}: {found:?}");
            assert_eq!(found[0].field() == "volumeGiB", rule == Rule::Volume);
        }
    }

    #[test]
    fn all_misfits_are_said_at_once() {
        let bad = Image {
            gib: 300,
            architecture: "arm64".into(),
            driver: Some("none".into()),
            ..Image::example("ami-1")
        };
        let rules: Vec<Rule> = misfits(&bad, &need()).iter().map(|misfit| misfit.rule).collect();
        assert_eq!(rules, [Rule::Architecture, Rule::Driver, Rule::Volume]);
    }

    #[test]
    fn pools_without_gpus_ask_for_no_driver() {
        let plain = Need { gpus: false, model: None, instance_type: "m7i.large".into(), ..need() };
        let image = Image { driver: Some("none".into()), ..Image::example("ami-1") };
        assert_eq!(misfits(&image, &plain), []);
    }
}
