//! Instances beside the fleet's own: what somebody launches with user data of their own making, as
//! Karpenter or another launch template does.
//!
//! They are made after an instance of the fleet, and differ in the agent's configuration and in the
//! scripts that run beside the agent's own.

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::AgentConfig;
use contract::names::{
    AGENT_CONFIG_PATH, MIME_CLOUD_CONFIG, MIME_NODE_CONFIG, MIME_SHELL_SCRIPT, TAG_POOL,
};
use lab::aws::{Emulator, Instance, xml_text};
use lab::user_data::{Document, from_base64, parse};
use serde_json::json;

const BOUNDARY: &str = "==e2e==";

/// What an instance boots from.
#[derive(Clone, Debug)]
pub struct Recipe {
    like: Instance,
    /// The agent's configuration.
    pub agent: AgentConfig,
    /// Shell scripts, in the order in which cloud-init runs them; the agent's installer first.
    pub scripts: Vec<String>,
    node_config: String,
}

impl Recipe {
    /// What an instance of the fleet boots from.
    ///
    /// # Errors
    /// When its user data is not what `control` makes.
    pub fn like(instance: &Instance) -> anyhow::Result<Self> {
        let encoded = instance.user_data.as_deref().context("an instance without user data")?;
        let Document::Multipart(parts) = parse(&from_base64(encoded)?)? else {
            bail!("user data that is not MIME");
        };
        let texts = |media_type: &'static str| {
            let of_type = parts.iter().filter(move |part| part.media_type == media_type);
            of_type.map(|part| String::from_utf8_lossy(&part.content).into_owned())
        };
        let cloud_config = texts(MIME_CLOUD_CONFIG).next().context("no cloud-config")?;
        let cloud_config: serde_json::Value = serde_yaml::from_str(&cloud_config)?;
        let agent = cloud_config["write_files"][0]["content"].as_str().context("no agent.yaml")?;
        Ok(Self {
            like: instance.clone(),
            agent: serde_yaml::from_str(agent).context("an agent.yaml of another form")?,
            scripts: texts(MIME_SHELL_SCRIPT).collect(),
            node_config: texts(MIME_NODE_CONFIG).next().context("no NodeConfig")?,
        })
    }

    /// The same with one more script at the end.
    #[must_use]
    pub fn with_script(mut self, script: &str) -> Self {
        self.scripts.push(format!("#!/bin/sh\n{script}\n"));
        self
    }

    fn user_data(&self) -> anyhow::Result<String> {
        let content = serde_yaml::to_string(&self.agent)?;
        let files = json!({"write_files": [
            {"path": AGENT_CONFIG_PATH, "permissions": "0644", "content": content}
        ]});
        let files = format!("#cloud-config\n{}", serde_yaml::to_string(&files)?);
        let scripts = self.scripts.iter().map(|script| (MIME_SHELL_SCRIPT, script));
        let parts = [(MIME_CLOUD_CONFIG, &files)].into_iter().chain(scripts);
        let mut text = format!(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\n\n"
        );
        for (media_type, body) in parts.chain([(MIME_NODE_CONFIG, &self.node_config)]) {
            text.push_str(&format!("--{BOUNDARY}\nContent-Type: {media_type}\n\n{body}\n"));
        }
        text.push_str(&format!("--{BOUNDARY}--\n"));
        Ok(STANDARD.encode(text))
    }

    /// Launches one instance that the lab calls `pool`/0; gives its id.
    ///
    /// # Errors
    /// When EC2 refuses.
    pub async fn launch(&self, emulator: &Emulator, pool: &str) -> anyhow::Result<String> {
        let Instance { image_id, instance_type, subnet_id, .. } = &self.like;
        let profile = self.like.instance_profile_arn.clone().context("no instance profile")?;
        let mut parameters = vec![
            ("MinCount", "1".to_owned()),
            ("MaxCount", "1".to_owned()),
            ("ImageId", image_id.clone()),
            ("InstanceType", instance_type.clone()),
            ("SubnetId", subnet_id.clone()),
            ("IamInstanceProfile.Arn", profile),
            ("MetadataOptions.HttpTokens", "required".to_owned()),
            ("UserData", self.user_data()?),
            ("TagSpecification.1.ResourceType", "instance".to_owned()),
            ("TagSpecification.1.Tag.1.Key", TAG_POOL.to_owned()),
            ("TagSpecification.1.Tag.1.Value", pool.to_owned()),
        ];
        if let Some(group) = self.like.security_groups.first() {
            parameters.push(("SecurityGroupId.1", group.clone()));
        }
        if let Some(cluster) = &self.like.cluster {
            parameters.push(("TagSpecification.1.Tag.2.Key", "eks:cluster-name".to_owned()));
            parameters.push(("TagSpecification.1.Tag.2.Value", cluster.clone()));
        }
        let parameters: Vec<_> =
            parameters.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let answer = emulator.query("ec2", "RunInstances", &parameters).await;
        let answer = answer.context("could not launch an instance")?;
        xml_text(&answer, "instanceId").with_context(|| format!("no instance id: {answer}"))
    }
}

/// Terminates instances.
///
/// # Errors
/// When EC2 refuses.
pub async fn terminate(emulator: &Emulator, instances: &[String]) -> anyhow::Result<()> {
    let names: Vec<String> = (1..=instances.len()).map(|n| format!("InstanceId.{n}")).collect();
    let parameters = names.iter().zip(instances).map(|(name, id)| (name.as_str(), id.as_str()));
    let parameters: Vec<_> = parameters.collect();
    let ended = emulator.query("ec2", "TerminateInstances", &parameters).await;
    ended.context("could not terminate instances")?;
    Ok(())
}
