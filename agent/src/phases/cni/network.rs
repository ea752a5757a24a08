//! The CNI's configuration on the host: which one containerd takes, and which one is a leftover.

use std::fs;

use contract::ErrorChain;
use serde_json::Value;

use super::{CONFIG_DIR, PLUGIN_DIR};
use crate::host::{Root, files};

/// What the VPC CNI's pod writes, under this name and with this plugin.
const VPC_FILE: &str = "10-aws.conflist";
const VPC_PLUGIN: &str = "aws-cni";

/// What is put behind the name of a leftover: containerd reads `.conf`, `.conflist` and `.json`.
const ASIDE: &str = ".rollcall-stale";

/// A network configuration that containerd can take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Name of its file.
    pub file: String,
    /// Version of CNI that it speaks, `1.0.0`.
    pub version: String,
    /// Its name.
    pub name: String,
    /// Its plugins' own configurations, in order; each has a `type`.
    pub plugins: Vec<Value>,
}

impl Network {
    /// The plugins' types, each once.
    #[must_use]
    pub fn types(&self) -> Vec<&str> {
        let mut types: Vec<&str> = Vec::new();
        for kind in self.plugins.iter().filter_map(|plugin| plugin["type"].as_str()) {
            if !types.contains(&kind) {
                types.push(kind);
            }
        }
        types
    }

    /// Whether its plugins know STATUS: from 1.1 on.
    #[must_use]
    pub fn has_status(&self) -> bool {
        let mut numbers = self.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (1, 1)
    }

    fn parse(file: &str, bytes: &[u8]) -> Result<Self, String> {
        let place = format!("`{CONFIG_DIR}/{file}`");
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| format!("{place} is no JSON: {error}"))?;
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let plugins = match value["plugins"].as_array() {
            Some(plugins) => plugins.clone(),
            None if value["type"].is_string() => vec![value.clone()],
            None => Vec::new(),
        };
        if plugins.is_empty() {
            return Err(format!("{place} names no plugin"));
        }
        let is_plain = |kind: &str| !kind.is_empty() && !kind.contains('/') && kind != "..";
        if !plugins.iter().all(|plugin| plugin["type"].as_str().is_some_and(is_plain)) {
            return Err(format!("{place} has a plugin without a type"));
        }
        Ok(Self { file: file.to_owned(), version: text("cniVersion"), name: text("name"), plugins })
    }
}

fn names(root: &Root) -> Vec<String> {
    let is_config =
        |name: &String| [".conf", ".conflist", ".json"].iter().any(|suffix| name.ends_with(suffix));
    files::names_in(&root.path(CONFIG_DIR)).into_iter().filter(is_config).collect()
}

fn read(root: &Root, file: &str) -> Result<Network, String> {
    let bytes = files::read(&root.path(CONFIG_DIR).join(file));
    Network::parse(file, &bytes.map_err(|error| ErrorChain(&error).to_string())?)
}

/// The first configuration by name, as containerd chooses, or why there is none.
///
/// # Errors
/// Says what is missing or cannot be read.
pub(super) fn chosen(root: &Root) -> Result<Network, String> {
    match names(root).first() {
        Some(file) => read(root, file),
        None => Err(format!("`{CONFIG_DIR}` has no configuration")),
    }
}

/// The VPC CNI's own configuration, if there is one. Before kubelet has run in this boot it can
/// only be of an earlier one: nothing else writes it.
#[must_use]
pub fn of_vpc_cni(root: &Root) -> Option<String> {
    names(root).into_iter().find(|file| {
        file == VPC_FILE || read(root, file).is_ok_and(|network| network.types() == [VPC_PLUGIN])
    })
}

/// Renames a leftover so that containerd does not take it; the VPC CNI's pod writes it anew.
///
/// # Errors
/// Says why it cannot be renamed.
pub fn move_aside(root: &Root, file: &str) -> Result<(), String> {
    let from = root.path(CONFIG_DIR).join(file);
    let to = root.path(CONFIG_DIR).join(format!("{file}{ASIDE}"));
    fs::rename(from, to)
        .map_err(|error| format!("could not move `{CONFIG_DIR}/{file}` aside: {error}"))
}

/// Programs of `wanted` that are not in the plugins' directory.
pub(super) fn missing<'a>(root: &Root, wanted: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let directory = root.path(PLUGIN_DIR);
    let missing = wanted.into_iter().filter(|name| !files::is_executable(&directory.join(name)));
    missing.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(configs: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        fs::create_dir_all(root.path(CONFIG_DIR)).unwrap();
        for (name, text) in configs {
            fs::write(root.path(CONFIG_DIR).join(name), text).unwrap();
        }
        (dir, root)
    }

    const CILIUM: &str = r#"{"cniVersion":"1.1.0","name":"cilium","plugins":[{"type":"cilium-cni"},{"type":"portmap"},{"type":"portmap"}]}"#;

    #[test]
    fn containerd_takes_the_first_by_name() {
        let (_dir, root) =
            node(&[("10-x.conf", r#"{"type":"bridge"}"#), ("05-c.conflist", CILIUM)]);
        let network = chosen(&root).unwrap();
        assert_eq!(
            (network.file.as_str(), network.types()),
            ("05-c.conflist", vec!["cilium-cni", "portmap"])
        );
        assert!(network.has_status());
        fs::remove_file(root.path(CONFIG_DIR).join("05-c.conflist")).unwrap();
        let old = chosen(&root).unwrap();
        assert_eq!(old.types(), ["bridge"]);
        assert!(!old.has_status());
    }

    #[test]
    fn what_cannot_be_taken_is_named() {
        for (text, says) in [
            ("{", "no JSON"),
            ("[]", "names no plugin"),
            (r#"{"plugins":[]}"#, "names no plugin"),
            (r#"{"plugins":[{"name":"x"}]}"#, "without a type"),
            (r#"{"plugins":[{"type":"../../bin/sh"}]}"#, "without a type"),
        ] {
            let (_dir, root) = node(&[("05.conflist", text)]);
            let why = chosen(&root).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
        let (_dir, root) = node(&[("README", "")]);
        assert!(chosen(&root).unwrap_err().contains("no configuration"));
    }

    #[test]
    fn only_the_vpc_cnis_own_configuration_is_a_leftover() {
        let aws = r#"{"cniVersion":"1.0.0","plugins":[{"type":"aws-cni"}]}"#;
        for (name, text, own) in [
            ("10-aws.conflist", aws, true),
            ("10-aws.conflist", "{\"torn", true),
            ("05-aws.conf", r#"{"type":"aws-cni"}"#, true),
            ("05-cilium.conflist", CILIUM, false),
            (
                "05-chained.conflist",
                r#"{"plugins":[{"type":"aws-cni"},{"type":"cilium-cni"}]}"#,
                false,
            ),
            ("10-aws.conflist.rollcall-stale", aws, false),
        ] {
            let (_dir, root) = node(&[(name, text)]);
            assert_eq!(of_vpc_cni(&root).is_some(), own, "{name}");
        }
        let (_dir, root) = node(&[("10-aws.conflist", aws)]);
        move_aside(&root, "10-aws.conflist").unwrap();
        assert_eq!(of_vpc_cni(&root), None);
        assert!(chosen(&root).is_err());
        assert!(move_aside(&root, "10-aws.conflist").unwrap_err().contains("10-aws.conflist"));
    }
}
