//! What an image is to be: a file of `amis/`. All problems at once, with paths, as of a fleet file.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::problem::Problem;
use crate::config::resolve::{API_VERSION, Judge, check_name, check_tags, check_version, constant};
use crate::config::schema::{Shape, optional, required};
use crate::config::{ConfigError, Document, parse_yaml, read, shaped};
use crate::launch::image::{Variant, parameter};

/// The only kind.
const KIND: &str = "Image";
/// The longest name: with version and time it must fit an image's, of 128 characters.
const NAME_MAX: usize = 64;
/// The EKS NVIDIA image takes 20 GiB; packages that are unpacked while it is made need some more.
const VOLUME_DEFAULT: u32 = 30;
const VOLUME_MIN: u64 = 20;
const VOLUME_MAX: u64 = 1024;
/// The driver of an image that has none.
pub const NO_DRIVER: &str = "none";

/// The file.
pub const IMAGE: Shape = Shape::Fields(&[
    required("apiVersion", Shape::Text, "Version of the format: `rollcall.dev/v1alpha1`"),
    required("kind", Shape::Text, "Always `Image`"),
    required("name", Shape::Text, "Name of the definition, which is the file's"),
    required("architecture", Shape::Word(&["x86_64", "arm64"]), "Processor, as EC2 spells it"),
    required("kubernetes", Shape::Text, "Kubernetes minor version of kubelet, `1.34`"),
    required(
        "driver",
        Shape::Text,
        "Branch of NVIDIA's driver that the source image has, `580`; `none` for an image without",
    ),
    optional(
        "parameter",
        Shape::Text,
        "SSM parameter that names the source image; without it the EKS image that AWS recommends",
    ),
    required(
        "buildInstanceType",
        Shape::Text,
        "EC2 instance type that the image is made on; never one with a GPU",
    ),
    optional("volumeGiB", Shape::Count, "Root volume, 20 to 1024 GiB; 30 by default"),
    optional("tags", Shape::Map(&Shape::Text), "Tags on the image and its snapshots"),
]);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawImage {
    api_version: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    architecture: Option<String>,
    kubernetes: Option<String>,
    driver: Option<String>,
    parameter: Option<String>,
    build_instance_type: Option<String>,
    #[serde(rename = "volumeGiB")]
    volume_gib: Option<u64>,
    tags: Option<BTreeMap<String, String>>,
}

/// What an image is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// Its name, which is the file's.
    pub name: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// Kubernetes minor version.
    pub kubernetes: String,
    /// Branch of NVIDIA's driver, or [`NO_DRIVER`].
    pub driver: String,
    /// SSM parameter that names the source image.
    pub parameter: String,
    /// Instance type that it is made on.
    pub build_instance_type: String,
    /// Root volume.
    pub volume_gib: u32,
    /// Tags of its own.
    pub tags: BTreeMap<String, String>,
}

/// Reads a definition.
///
/// # Errors
/// [`ConfigError`], with every problem at once.
pub fn load(path: &Path) -> Result<Definition, ConfigError> {
    let (name, text) = read(path, Document::Image)?;
    parse(&text, &name)
}

/// Reads a definition's text; `path` is for messages, and its file's name must be the definition's.
///
/// # Errors
/// [`ConfigError`], with every problem at once.
pub fn parse(text: &str, path: &str) -> Result<Definition, ConfigError> {
    let document = Document::Image;
    let mut problems = Vec::new();
    let value = parse_yaml(text, path, document)?;
    let raw: RawImage = shaped(value, path, document, &IMAGE, &mut problems)?;
    let stem = Path::new(path).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    match resolve(&raw, stem.as_deref(), &mut problems) {
        Some(definition) if problems.is_empty() => Ok(definition),
        _ => Err(ConfigError::Problems { document, path: path.into(), problems }),
    }
}

fn resolve(raw: &RawImage, stem: Option<&str>, problems: &mut Vec<Problem>) -> Option<Definition> {
    let mut judge = Judge::default();
    constant(&mut judge, "apiVersion", raw.api_version.as_deref(), API_VERSION);
    constant(&mut judge, "kind", raw.kind.as_deref(), KIND);
    if let Some(name) = &raw.name {
        check_own_name(&mut judge, name, stem);
    }
    if let Some(version) = &raw.kubernetes {
        check_version(&mut judge, version);
    }
    if let Some(driver) = &raw.driver {
        check_driver(&mut judge, driver);
    }
    if let (Some(kind), Some(architecture)) = (&raw.build_instance_type, &raw.architecture) {
        check_build_type(&mut judge, kind, architecture);
    }
    let tags = raw.tags.clone().unwrap_or_default();
    check_tags(&mut judge, "tags", &tags);
    let volume = raw.volume_gib.unwrap_or(u64::from(VOLUME_DEFAULT));
    if !(VOLUME_MIN..=VOLUME_MAX).contains(&volume) {
        judge.say("volumeGiB", format!("must be {VOLUME_MIN} to {VOLUME_MAX}, is {volume}"));
    }
    let named = parameter_of(&mut judge, raw);
    problems.append(&mut judge.problems);
    Some(Definition {
        name: raw.name.clone()?,
        architecture: raw.architecture.clone()?,
        kubernetes: raw.kubernetes.clone()?,
        driver: raw.driver.clone()?,
        parameter: named?,
        build_instance_type: raw.build_instance_type.clone()?,
        volume_gib: u32::try_from(volume).ok()?,
        tags,
    })
}

/// Names of definitions have dots in them, for the version.
fn check_own_name(judge: &mut Judge, name: &str, stem: Option<&str>) {
    check_name(judge, "name", &name.replace(['.', '_'], "-"), NAME_MAX);
    if let Some(stem) = stem.filter(|stem| *stem != name) {
        judge.say("name", format!("`{name}` is not the file's name, `{stem}`"));
    }
}

fn check_driver(judge: &mut Judge, driver: &str) {
    let branch = driver.parse::<u32>().is_ok_and(|branch| (400..1000).contains(&branch));
    if !branch && driver != NO_DRIVER {
        judge.say("driver", format!("`{driver}` is no branch such as `580`, and not `none`"));
    }
}

/// On a GPU the image's resolver chooses a driver for that GPU's family at once, and deletes the other:
/// the image would serve one family alone.
fn check_build_type(judge: &mut Judge, kind: &str, architecture: &str) {
    let at = "buildInstanceType";
    let Some((family, size)) = kind.split_once('.').filter(|(_, size)| !size.is_empty()) else {
        judge.say(at, format!("`{kind}` is not of the form `m7i.large`"));
        return;
    };
    let letters: String = family.chars().take_while(char::is_ascii_alphabetic).collect();
    if matches!(letters.as_str(), "g" | "gr" | "p" | "inf" | "trn" | "dl" | "vt" | "f") {
        let why = "the driver in the image would be frozen to that GPU's family";
        judge.say(at, format!("`{kind}` has an accelerator: {why}; take `m7i.{size}`"));
        return;
    }
    // Graviton's families have a `g` behind their generation, `m7gd`; the first was `a1`.
    let behind = family.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let is_arm = letters == "a" || behind.trim_start_matches(char::is_numeric).starts_with('g');
    if is_arm != (architecture == "arm64") {
        let is = if is_arm { "arm64" } else { "x86_64" };
        judge.say(at, format!("`{kind}` is {is}, and the image {architecture}"));
    }
}

/// The parameter that is named, which must be of the same version and architecture; else AWS's own.
fn parameter_of(judge: &mut Judge, raw: &RawImage) -> Option<String> {
    let (kubernetes, architecture) = (raw.kubernetes.as_ref()?, raw.architecture.as_ref()?);
    let variant = match raw.driver.as_deref()? {
        NO_DRIVER => Variant::Standard,
        _ => Variant::Nvidia,
    };
    let usual = parameter(kubernetes, architecture, variant);
    let Some(named) = &raw.parameter else { return Some(usual) };
    let prefix = usual.trim_end_matches("recommended/image_id");
    if named.starts_with("/aws/service/eks/") && !named.starts_with(prefix) {
        judge.say("parameter", format!("names another image than this one's: `{prefix}…`"));
    } else if !named.starts_with('/') {
        judge.say("parameter", format!("`{named}` is no parameter's name: it begins with `/`"));
    }
    Some(named.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: rollcall.dev/v1alpha1\nkind: Image\nname: gpu-1.34\n\
        architecture: x86_64\nkubernetes: \"1.34\"\ndriver: \"580\"\nbuildInstanceType: m7i.large\n";

    fn said(text: &str) -> Vec<String> {
        match parse(text, "amis/gpu-1.34.yaml") {
            Err(ConfigError::Problems { problems, .. }) => {
                problems.iter().map(ToString::to_string).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_source_follows_from_the_rest() {
        let definition = parse(GOOD, "amis/gpu-1.34.yaml").unwrap();
        assert_eq!(
            definition.parameter,
            "/aws/service/eks/optimized-ami/1.34/amazon-linux-2023/x86_64/nvidia/recommended/image_id"
        );
        assert_eq!(definition.volume_gib, 30);
        let plain = GOOD.replace("\"580\"", "none");
        assert!(parse(&plain, "gpu-1.34.yaml").unwrap().parameter.contains("/standard/"));
        let pinned = definition.parameter.replace("recommended", "amazon-eks-node-v20260917");
        let text = format!("{GOOD}parameter: {pinned}\n");
        assert_eq!(parse(&text, "gpu-1.34.yaml").unwrap().parameter, pinned);
    }

    /// What is changed in a good definition, and what must be said: that and nothing else.
    const BAD: [(&str, &str, &str); 15] = [
        ("v1alpha1", "v1", "apiVersion: is `rollcall.dev/v1`, must be"),
        ("kind: Image", "kind: Fleet", "kind: is `Fleet`, must be `Image`"),
        ("gpu-1.34\n", "gpu-1.35\n", "name: `gpu-1.35` is not the file's name, `gpu-1.34`"),
        (
            "x86_64",
            "x86",
            "architecture: `x86` is none of `x86_64`, `arm64`; did you mean `x86_64`?",
        ),
        ("\"1.34\"", "1.34", "kubernetes: must be text"),
        ("\"1.34\"", "\"1.22\"", "kubernetes: `1.22` is too old"),
        ("\"580\"", "\"580.95.05\"", "driver: `580.95.05` is no branch such as `580`"),
        ("m7i.large", "g6.xlarge", "buildInstanceType: `g6.xlarge` has an accelerator"),
        ("m7i.large", "p5en.48xlarge", "buildInstanceType: `p5en.48xlarge` has an accelerator"),
        ("m7i.large", "g5g.xlarge", "buildInstanceType: `g5g.xlarge` has an accelerator"),
        ("m7i.large", "m7g.large", "buildInstanceType: `m7g.large` is arm64, and the image x86_64"),
        ("m7i.large", "large", "buildInstanceType: `large` is not of the form `m7i.large`"),
        ("driver:", "volumeGiB: 8\ndriver:", "volumeGiB: must be 20 to 1024, is 8"),
        ("driver:", "drivers: 1\ndriver:", "drivers: is no known field; did you mean `driver`?"),
        (
            "driver:",
            "parameter: /aws/service/eks/optimized-ami/1.33/x\ndriver:",
            "parameter: names another image than this one's",
        ),
    ];

    #[test]
    fn each_problem_has_its_path() {
        for (from, to, expected) in BAD {
            assert!(GOOD.contains(from), "{from}");
            let said = said(&GOOD.replace(from, to));
            assert_eq!(said.len(), 1, "{to}: {said:?}");
            assert!(said[0].starts_with(expected), "{to}: {said:?}");
        }
    }

    #[test]
    fn all_problems_are_said_at_once() {
        let said =
            said("kind: Image\nname: Gpu\narchitecture: arm64\nbuildInstanceType: m7i.large\n");
        let paths: Vec<_> = said.iter().filter_map(|one| one.split(':').next()).collect();
        let all = ["apiVersion", "kubernetes", "driver", "name", "name", "buildInstanceType"];
        assert_eq!(paths, all, "{said:?}");
    }

    #[test]
    fn graviton_is_told_by_its_family() {
        for (kind, arm) in
            [("m7gd.large", true), ("a1.large", true), ("t4g.small", true), ("c6in.large", false)]
        {
            let mut judge = Judge::default();
            check_build_type(&mut judge, kind, if arm { "arm64" } else { "x86_64" });
            assert!(judge.problems.is_empty(), "{kind}: {:?}", judge.problems);
        }
    }

    #[test]
    fn every_definition_of_the_repository_is_sound() {
        let amis = Path::new(env!("CARGO_MANIFEST_DIR")).join("../amis");
        let files = std::fs::read_dir(amis).unwrap().flatten().map(|entry| entry.path());
        let files: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
        assert!(files.len() >= 2, "{files:?}");
        for file in files {
            load(&file).unwrap_or_else(|error| panic!("{}: {error:?}", file.display()));
        }
    }
}
