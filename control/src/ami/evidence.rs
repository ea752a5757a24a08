//! Whether an image has what was asked for: its manifest, which was written inside it while it was made,
//! and the tags that it ended with. Pure.

use serde::Deserialize;

use crate::ami::definition::NO_DRIVER;
use crate::ami::image::Image;
use crate::ami::variables::Variables;

/// The manifest of an image (`/usr/share/rollcall/image.json` in it), as far as it is asked here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Manifest {
    agent: Agent,
    kubernetes: Kubernetes,
    driver: Driver,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Agent {
    version: String,
    sha256: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Kubernetes {
    kubelet: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Driver {
    trees: Vec<Tree>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Tree {
    version: String,
}

/// All in which the image differs from what was asked; empty when it is that.
#[must_use]
pub fn differences(asked: &Variables, manifest: &Manifest, image: &Image) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, is: &str, wanted: &str| {
        if is != wanted {
            let is = if is.is_empty() { "nothing" } else { is };
            found.push(format!("{what} is {is}, and {wanted} was asked for"));
        }
    };
    compare("the agent in it", &manifest.agent.version, &asked.agent_version);
    compare("the tarball it was installed from", &manifest.agent.sha256, &asked.agent_sha256);
    compare("its kubelet", &minor(&manifest.kubernetes.kubelet), &asked.kubernetes_version);
    compare("its architecture", &image.architecture, &asked.architecture);
    let tag = |value: &Option<String>| value.clone().unwrap_or_default();
    compare("its definition's tag", &tag(&image.definition), tagged(asked));
    compare("its Kubernetes tag", &tag(&image.kubernetes), &asked.kubernetes_version);
    compare("its driver's tag", &tag(&image.driver), &asked.driver_branch);
    compare("its agent's tag", &tag(&image.agent), &asked.agent_version);
    compare("its tarball's tag", &tag(&image.agent_sha256), &asked.agent_sha256);
    compare("its source's tag", &tag(&image.source), &asked.source_ami);
    compare("its state", &image.state, "available");
    found.extend(driver(asked, manifest));
    found
}

fn tagged(asked: &Variables) -> &str {
    asked.tags.get(contract::names::TAG_IMAGE).map_or("", String::as_str)
}

/// `v1.34.4` → `1.34`.
fn minor(version: &str) -> String {
    version.trim_start_matches('v').split('.').take(2).collect::<Vec<_>>().join(".")
}

/// The image may hold several trees, of which one is kept at the first boot: one of them is the branch
/// that was asked for.
fn driver(asked: &Variables, manifest: &Manifest) -> Option<String> {
    let branch = |tree: &Tree| tree.version.split('.').next().unwrap_or_default().to_owned();
    let mut there: Vec<String> = manifest.driver.trees.iter().map(branch).collect();
    there.sort();
    there.dedup();
    let wanted = &asked.driver_branch;
    if wanted == NO_DRIVER {
        let list = there.join(", ");
        return (!there.is_empty())
            .then(|| format!("it has a driver, {list}, and none was asked for"));
    }
    let has = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    (!there.contains(wanted))
        .then(|| format!("its driver's branch is {has}, and {wanted} was asked for"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use contract::names::TAG_IMAGE;

    use super::*;

    fn asked() -> Variables {
        let image = Image::example("ami-1");
        Variables {
            region: "us-east-1".into(),
            source_ami: image.source.unwrap(),
            image_name: image.name,
            architecture: image.architecture,
            kubernetes_version: image.kubernetes.unwrap(),
            driver_branch: image.driver.unwrap(),
            instance_type: "m7i.large".into(),
            agent_tarball: "/t".into(),
            agent_version: image.agent.unwrap(),
            agent_sha256: image.agent_sha256.unwrap(),
            volume_size_gib: 30,
            tags: BTreeMap::from([(TAG_IMAGE.to_owned(), image.definition.unwrap())]),
            manifest_path: "/m".into(),
        }
    }

    fn manifest() -> Manifest {
        let asked = asked();
        let text = serde_json::json!({
            "schema": 1,
            "image": {"name": asked.image_name},
            "agent": {"version": asked.agent_version, "sha256": asked.agent_sha256},
            "kubernetes": {"version": "1.34", "kubelet": "v1.34.4"},
            "driver": {"branch": "580", "trees": [
                {"name": "lts", "version": "580.95.05"}, {"name": "pb", "version": "595.12.01"},
            ]},
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn an_image_that_is_what_was_asked_for_differs_in_nothing() {
        assert_eq!(differences(&asked(), &manifest(), &Image::example("ami-1")), [""; 0]);
    }

    #[test]
    fn each_difference_is_said() {
        let image = Image::example("ami-1");
        let said = |manifest: &Manifest, image: &Image| differences(&asked(), manifest, image);
        let old = Manifest { kubernetes: Kubernetes { kubelet: "v1.33.9".into() }, ..manifest() };
        assert_eq!(said(&old, &image), ["its kubelet is 1.33, and 1.34 was asked for"]);
        let trees = vec![Tree { version: "570.1".into() }];
        let other = Manifest { driver: Driver { trees }, ..manifest() };
        assert_eq!(said(&other, &image), ["its driver's branch is 570, and 580 was asked for"]);
        let untagged = Image { driver: None, ..image.clone() };
        assert_eq!(
            said(&manifest(), &untagged),
            ["its driver's tag is nothing, and 580 was asked for"]
        );
        let agent = Agent { version: "0.0.1".into(), ..manifest().agent };
        let said =
            said(&Manifest { agent, ..manifest() }, &Image { state: "failed".into(), ..image });
        assert_eq!(said.len(), 2, "{said:?}");
        // A manifest that says nothing proves nothing.
        assert_eq!(differences(&asked(), &Manifest::default(), &Image::example("ami-1")).len(), 4);
    }

    #[test]
    fn an_image_without_a_driver_has_none() {
        let plain = Variables { driver_branch: "none".into(), ..asked() };
        let image = Image { driver: Some("none".into()), ..Image::example("ami-1") };
        let bare = Manifest { driver: Driver::default(), ..manifest() };
        assert_eq!(differences(&plain, &bare, &image), [""; 0]);
        let said = differences(&plain, &manifest(), &image);
        assert_eq!(said, ["it has a driver, 580, 595, and none was asked for"]);
    }
}
