//! What a node boots from: MIME user data with the agent's configuration, where it is not baked in
//! the script that installs the agent, and the whole NodeConfig. Pure, and the same for every launch
//! path: EKS merges nothing into it, because every template names its image.

pub mod explain;
mod install;
mod mime;
mod node_config;

use std::collections::BTreeMap;

use contract::AgentConfig;
use contract::names::{AGENT_CONFIG_PATH, MIME_CLOUD_CONFIG, MIME_NODE_CONFIG, MIME_SHELL_SCRIPT};
use serde::Serialize;

use crate::config::spec::Taint;
use crate::failure::Advice;
use mime::Part;

/// EC2's limit, before base64 (`docs.aws.amazon.com`, "Instance user data").
pub const LIMIT: usize = 16 * 1024;

/// Everything that user data is made from.
#[derive(Clone, Debug)]
pub struct UserData {
    /// The agent's configuration.
    pub agent: AgentConfig,
    /// Region of the bucket that an `s3://` install reads.
    pub region: String,
    /// The NodeConfig's values.
    pub node: NodeSettings,
}

/// What nodeadm is told.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Name of the cluster.
    pub cluster: String,
    /// URL of its API server.
    pub endpoint: String,
    /// Its CA, base64 of PEM, as DescribeCluster gives it.
    pub ca: String,
    /// Addresses of its services.
    pub service_cidr: String,
    /// Labels that the node registers with.
    pub labels: BTreeMap<String, String>,
    /// Taints that the node registers with.
    pub taints: Vec<Taint>,
    /// Whether the instance's NVMe disks become one volume for pods.
    pub local_storage: bool,
}

/// Why no user data could be made.
#[derive(Debug, thiserror::Error)]
pub enum UserDataError {
    /// EC2 would refuse it.
    #[error("the user data of pool `{pool}` has {size} bytes, and EC2 takes {LIMIT}")]
    TooLarge {
        /// The pool.
        pool: String,
        /// Its size in bytes.
        size: usize,
    },
    /// A value cannot be written as YAML.
    #[error("could not write the {part} of pool `{pool}`")]
    Yaml {
        /// The pool.
        pool: String,
        /// Which document.
        part: &'static str,
        /// Why.
        #[source]
        source: serde_yaml::Error,
    },
}

impl Advice for UserDataError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::TooLarge { .. } => Some("take labels or taints off the pool".into()),
            Self::Yaml { .. } => None,
        }
    }

    fn exit_code(&self) -> contract::ExitCode {
        contract::ExitCode::PreflightBlocked
    }
}

#[derive(Serialize)]
struct CloudConfig {
    write_files: [WriteFile; 1],
}

#[derive(Serialize)]
struct WriteFile {
    path: &'static str,
    permissions: &'static str,
    content: String,
}

/// The user data, not yet base64.
///
/// # Errors
/// [`UserDataError`] when it is larger than EC2 takes.
pub fn render(data: &UserData) -> Result<String, UserDataError> {
    let pool = &data.agent.pool;
    let yaml =
        |part: &'static str| move |source| UserDataError::Yaml { pool: pool.clone(), part, source };
    let content = serde_yaml::to_string(&data.agent).map_err(yaml("agent configuration"))?;
    let file = WriteFile { path: AGENT_CONFIG_PATH, permissions: "0644", content };
    let cloud_config = serde_yaml::to_string(&CloudConfig { write_files: [file] })
        .map_err(yaml("cloud-config"))?;

    let mut parts = vec![Part {
        media_type: MIME_CLOUD_CONFIG,
        body: format!("#cloud-config\n{cloud_config}"),
    }];
    if let Some(install) = &data.agent.install {
        let body = install::script(install, &data.region);
        parts.push(Part { media_type: MIME_SHELL_SCRIPT, body });
    }
    let body = node_config::render(&data.node).map_err(yaml("NodeConfig"))?;
    parts.push(Part { media_type: MIME_NODE_CONFIG, body });

    let text = mime::multipart(&parts);
    match text.len() {
        0..=LIMIT => Ok(text),
        size => Err(UserDataError::TooLarge { pool: pool.clone(), size }),
    }
}

#[cfg(test)]
mod tests {
    use contract::agent_config::{ExpectedGpus, Install};

    use super::*;

    fn sample(install: Option<Install>) -> UserData {
        let mut agent = AgentConfig::new("prod", "h100");
        agent.pool_size = 4;
        agent.gpus =
            Some(ExpectedGpus { count: 8, model: Some("H100".into()), memory_mib: Some(81920) });
        agent.install = install;
        UserData {
            agent,
            region: "us-east-1".into(),
            node: NodeSettings {
                cluster: "prod".into(),
                endpoint: "https://ABCDEF.gr7.us-east-1.eks.amazonaws.com".into(),
                ca: "LS0tLS1CRUdJTg==".into(),
                service_cidr: "10.100.0.0/16".into(),
                labels: BTreeMap::from([
                    ("node-type".into(), "gpu".into()),
                    ("eks.amazonaws.com/nodegroup".into(), "h100".into()),
                ]),
                taints: vec![Taint {
                    key: "nvidia.com/gpu".into(),
                    value: "true".into(),
                    effect: "NoSchedule".into(),
                }],
                local_storage: true,
            },
        }
    }

    fn published() -> Install {
        Install { url: "s3://prod-agent/agent/abc.tar.gz".into(), sha256: "ab".repeat(32) }
    }

    fn golden(name: &str, text: &str) {
        let path = format!("{}/src/user_data/golden/{name}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{name}");
    }

    #[test]
    fn baked() {
        golden("baked.txt", &render(&sample(None)).unwrap());
    }

    #[test]
    fn installed() {
        golden("installed.txt", &render(&sample(Some(published()))).unwrap());
    }

    #[test]
    fn the_same_twice() {
        let data = sample(Some(published()));
        assert_eq!(render(&data).unwrap(), render(&data).unwrap());
    }

    #[test]
    fn too_much_is_refused_with_its_size() {
        let mut data = sample(None);
        data.node.labels = (0..800).map(|n| (format!("label-{n}"), "x".repeat(20))).collect();
        let error = render(&data).unwrap_err();
        assert!(matches!(error, UserDataError::TooLarge { size, .. } if size > LIMIT));
    }
}
