//! The builds: one that goes well, one whose provisioner fails, one that is interrupted; and what each leaves in the account.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use lab::aws::Emulator;
use serde_json::{Value, json};

use super::tool::Packer;
use crate::torture::account::Account;

/// The longest that a build may take, however busy this machine is.
const BUILT: Duration = Duration::from_secs(300);
/// The bridge's own address: where Packer comes from, as a machine sees it.
const SOURCE: &str = "100.64.0.1/32";

/// What the builds are told and looked at with.
#[derive(Clone, Debug)]
pub struct Builds {
    /// Packer, pointed at the lab.
    pub packer: Packer,
    /// The account's contents and calls.
    pub account: Account,
    /// AWS, as its operator.
    pub emulator: Emulator,
    /// Where variables and manifests are kept.
    pub dir: PathBuf,
    /// What every build is told.
    pub variables: Value,
}

/// An image that was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its id.
    pub image: String,
    /// How long the build took.
    pub took: Duration,
}

impl Builds {
    /// The same builds, from another source image.
    #[must_use]
    pub fn of(&self, source: Value) -> Self {
        let mut other = self.clone();
        other.variables["source_ami"] = source;
        other
    }

    /// The variables of one build, in a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn told(&self, name: &str, more: &Value) -> anyhow::Result<PathBuf> {
        let mut variables = self.variables.clone();
        variables["image_name"] = json!(name);
        variables["manifest_path"] = json!(self.dir.join(format!("{name}.json")));
        variables["ssh_source_cidrs"] = json!([SOURCE]);
        for (key, value) in more.as_object().into_iter().flatten() {
            variables[key] = value.clone();
        }
        let path = self.dir.join(format!("{name}.pkrvars.json"));
        std::fs::write(&path, variables.to_string())
            .with_context(|| format!("could not write `{}`", path.display()))?;
        Ok(path)
    }

    /// Builds an image and looks at it: what EC2 says of it, what the build asked of EC2, that nothing else is left.
    ///
    /// # Errors
    /// When the build fails, or anything is not as it must be.
    pub async fn good(&self, name: &str) -> anyhow::Result<Made> {
        let before = self.account.holds().await?;
        let calls = self.account.calls_so_far().await?;
        let began = Instant::now();
        let build = self.packer.build(&self.told(name, &json!({}))?, &[])?;
        let (code, said) = build.end(BUILT).await?;
        let took = began.elapsed();
        ensure!(code == 0, "the build ended with {code}:\n{said}");
        let after = self.account.holds().await?;
        let new: Vec<&String> = after.iter().filter(|line| !before.contains(line)).collect();
        ensure!(
            new.len() == 2
                && new
                    .iter()
                    .all(|line| line.starts_with("image ") || line.starts_with("snapshot ")),
            "beside the image and its snapshot the build has left: {new:?}"
        );
        self.asked_well(&self.account.calls_since(calls).await?)?;
        let image = self.image(name).await?;
        Ok(Made { image, took })
    }

    /// What the manifest and EC2 say of the image.
    async fn image(&self, name: &str) -> anyhow::Result<String> {
        let manifest = self.read(&format!("{name}.json"))?;
        let artifact = manifest["builds"][0]["artifact_id"].as_str().context("no artifact")?;
        let (_, image) = artifact.split_once(':').context("an artifact without region")?;
        let described = [("ImageId.1", image)];
        let xml = self.emulator.query("ec2", "DescribeImages", &described).await?;
        let text = |key: &str| self.variables[key].as_str().unwrap_or_default();
        let mut wanted = vec![
            "<imageState>available<".to_owned(),
            "<imdsSupport>v2.0<".to_owned(),
            "<encrypted>true<".to_owned(),
            format!("<architecture>{}<", text("architecture")),
        ];
        for (tag, key) in [
            ("agent", "agent_version"),
            ("agent-sha256", "agent_sha256"),
            ("architecture", "architecture"),
            ("driver", "driver_branch"),
            ("k8s", "kubernetes_version"),
            ("source", "source_ami"),
        ] {
            wanted.push(format!("<key>rollcall:{tag}</key><value>{}<", text(key)));
        }
        let squeezed: String = xml.split('\n').map(str::trim).collect();
        for words in wanted {
            ensure!(squeezed.contains(&words), "EC2 does not say `{words}` of {image}: {xml}");
        }
        ensure!(!squeezed.contains("rollcall:channel"), "a build has promoted its own image");
        let inside = self.read(&format!("{name}-image.json"))?;
        for (path, key) in [
            ("/agent/version", "agent_version"),
            ("/agent/sha256", "agent_sha256"),
            ("/image/source", "source_ami"),
            ("/kubernetes/version", "kubernetes_version"),
            ("/driver/branch", "driver_branch"),
        ] {
            let said = inside.pointer(path).and_then(Value::as_str).unwrap_or_default();
            ensure!(
                said == text(key),
                "the image's manifest says `{said}` at {path}, not `{}`",
                text(key)
            );
        }
        let driver = inside["driver"]["trees"][0]["version"].as_str().unwrap_or_default();
        ensure!(driver.starts_with("580."), "the image's manifest says `{driver}` of its driver");
        let packages = inside["packages"].as_array().map_or(0, Vec::len);
        ensure!(packages > 0, "the image's manifest lists no packages");
        Ok(image.to_owned())
    }

    /// What the build asked of EC2: nothing is open to the world, version 1 of IMDS is off, the volume is encrypted.
    fn asked_well(&self, calls: &Value) -> anyhow::Result<()> {
        let of = |op: &str| {
            let found = calls.as_array().into_iter().flatten().filter(|call| call["op"] == op);
            found.map(|call| call["params"].clone()).collect::<Vec<Value>>()
        };
        let opened = of("AuthorizeSecurityGroupIngress");
        ensure!(opened.len() == 1, "the build opens {} rules", opened.len());
        let rule = opened[0].to_string();
        ensure!(
            rule.contains(SOURCE) && !rule.contains("0.0.0.0/0") && !rule.contains("::/0"),
            "it opens {rule}"
        );
        let run = of("RunInstances");
        ensure!(run.len() == 1, "the build runs {} instances", run.len());
        for (parameter, value) in [
            ("MetadataOptions.HttpTokens", "required"),
            ("MetadataOptions.HttpPutResponseHopLimit", "1"),
            ("BlockDeviceMapping.1.Ebs.Encrypted", "true"),
            ("InstanceInitiatedShutdownBehavior", "terminate"),
        ] {
            let asked = run[0][parameter]
                .as_str()
                .map_or_else(|| run[0][parameter].to_string(), str::to_owned);
            ensure!(asked == value, "RunInstances was asked with {parameter}={asked}: {}", run[0]);
        }
        for op in ["CreateKeyPair", "CreateSecurityGroup", "RunInstances"] {
            let tagged =
                of(op).iter().all(|params| params.to_string().contains("rollcall:image-build"));
            ensure!(
                tagged,
                "{op} makes something that a sweep for `rollcall:image-build` would not find"
            );
        }
        Ok(())
    }

    fn read(&self, name: &str) -> anyhow::Result<Value> {
        let path = self.dir.join(name);
        let text =
            std::fs::read(&path).with_context(|| format!("could not read `{}`", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("`{}` is no JSON", path.display()))
    }

    /// A build whose provisioner refuses what it is given must fail with its words, and leave nothing.
    ///
    /// # Errors
    /// When it does not fail, or leaves something.
    pub async fn failing(&self) -> anyhow::Result<()> {
        let before = self.account.holds().await?;
        let another = json!({"agent_sha256": "0".repeat(64)});
        let build = self.packer.build(&self.told("failing", &another)?, &[])?;
        let (code, said) = build.end(BUILT).await?;
        ensure!(code != 0, "a build with another tarball than asked for went well:\n{said}");
        ensure!(
            said.contains("it is another tarball"),
            "the build does not say why it failed:\n{said}"
        );
        self.account.comes_to(&before).await.context("after a build that failed")
    }

    /// A build that is interrupted while it provisions must end by itself, and leave nothing.
    ///
    /// # Errors
    /// When it does not, or leaves something.
    pub async fn interrupted(&self) -> anyhow::Result<()> {
        let before = self.account.holds().await?;
        let build = self.packer.build(&self.told("interrupted", &json!({}))?, &[])?;
        build.says("Provisioning with shell script", BUILT).await?;
        ensure!(self.account.holds().await? != before, "there is nothing yet that could be left");
        build.interrupt()?;
        let (code, said) = build.end(BUILT).await?;
        ensure!(code != 0, "an interrupted build went well:\n{said}");
        self.account.comes_to(&before).await.context("after a build that was interrupted")
    }
}
