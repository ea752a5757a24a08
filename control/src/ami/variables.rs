//! A definition as the variables of `packer/variables.pkr.hcl`. Pure.

use std::collections::BTreeMap;
use std::path::Path;

use contract::names::TAG_IMAGE;
use serde::Serialize;

use crate::ami::definition::Definition;

/// What a build is told, beside what its definition says.
#[derive(Clone, Debug)]
pub struct Build<'a> {
    /// AWS region.
    pub region: &'a str,
    /// The source image.
    pub source: &'a str,
    /// The agent's tarball.
    pub tarball: &'a Path,
    /// Its SHA-256.
    pub sha256: &'a str,
    /// What the agent in it says of its version; else the build fails.
    pub agent: &'a str,
    /// Where Packer's manifest is written.
    pub manifest: &'a Path,
    /// When it begins, `20261121T233635Z`: in the image's name.
    pub stamp: &'a str,
}

/// Packer's variables, by their names there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Variables {
    /// See [`Build::region`].
    pub region: String,
    /// See [`Build::source`].
    pub source_ami: String,
    /// Unique; the name of the build, which everything that it runs is tagged with.
    pub image_name: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// `1.34`.
    pub kubernetes_version: String,
    /// `580` or `none`.
    pub driver_branch: String,
    /// What the image is made on.
    pub instance_type: String,
    /// See [`Build::tarball`].
    pub agent_tarball: String,
    /// See [`Build::agent`].
    pub agent_version: String,
    /// See [`Build::sha256`].
    pub agent_sha256: String,
    /// Root volume.
    pub volume_size_gib: u32,
    /// Tags on the image, its snapshots, and all that the build runs; the template adds what it knows.
    pub tags: BTreeMap<String, String>,
    /// See [`Build::manifest`].
    pub manifest_path: String,
}

/// The variables of a build.
#[must_use]
pub fn of(definition: &Definition, build: &Build<'_>) -> Variables {
    let Definition { name, kubernetes, driver, .. } = definition;
    let mut tags = definition.tags.clone();
    tags.insert(TAG_IMAGE.to_owned(), name.clone());
    Variables {
        region: build.region.to_owned(),
        source_ami: build.source.to_owned(),
        image_name: format!("rollcall-{name}-{}", build.stamp),
        architecture: definition.architecture.clone(),
        kubernetes_version: kubernetes.clone(),
        driver_branch: driver.clone(),
        instance_type: definition.build_instance_type.clone(),
        agent_tarball: build.tarball.display().to_string(),
        agent_version: build.agent.to_owned(),
        agent_sha256: build.sha256.to_owned(),
        volume_size_gib: definition.volume_gib,
        tags,
        manifest_path: build.manifest.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ami::definition;

    #[test]
    fn a_definition_becomes_variables() {
        let text = "apiVersion: rollcall.dev/v1alpha1\nkind: Image\nname: gpu-1.34\narchitecture: arm64\n\
                    kubernetes: \"1.34\"\ndriver: \"580\"\nbuildInstanceType: m7g.large\ntags: {team: ml}\n";
        let definition = definition::parse(text, "gpu-1.34.yaml").unwrap();
        let build = Build {
            region: "us-east-1",
            source: "ami-0123456789abcdef0",
            tarball: Path::new("/dist/agent.tar.gz"),
            sha256: "ab",
            agent: "0.1.0",
            manifest: Path::new("/out/m.json"),
            stamp: "20261121T233635Z",
        };
        let json = serde_json::to_value(of(&definition, &build)).unwrap();
        let expected = serde_json::json!({
            "region": "us-east-1",
            "source_ami": "ami-0123456789abcdef0",
            "image_name": "rollcall-gpu-1.34-20261121T233635Z",
            "architecture": "arm64",
            "kubernetes_version": "1.34",
            "driver_branch": "580",
            "instance_type": "m7g.large",
            "agent_tarball": "/dist/agent.tar.gz",
            "agent_version": "0.1.0",
            "agent_sha256": "ab",
            "volume_size_gib": 30,
            "tags": {"rollcall:image": "gpu-1.34", "team": "ml"},
            "manifest_path": "/out/m.json",
        });
        assert_eq!(json, expected);
    }
}
