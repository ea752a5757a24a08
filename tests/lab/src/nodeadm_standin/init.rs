//! `nodeadm init`: sources → enrich → validate → config phase → run phase, in nodeadm's order.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::process::Command;

use super::config::{ConfigError, NodeConfigSpec};
use super::enrich::{Imds, ImdsError, InstanceDetails, Wanted};
use super::sources::{self, SourceError};
use super::{containerd, kubelet, log};
use crate::directory::{DirectoryError, write_atomically};

/// How often a daemon's state is looked at, as nodeadm does.
const POLL: Duration = Duration::from_millis(250);

/// Where PID 1 finds the variables of every service.
pub(crate) const ENVIRONMENT_OF_ALL: &str = "etc/systemd/system.conf.d/environment.conf";

/// Why a node was not initialised.
#[derive(Debug, Error)]
pub(super) enum InitError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Instance(#[from] ImdsError),
    #[error(transparent)]
    Write(#[from] DirectoryError),
    #[error("{0}")]
    CredentialProvider(String),
    #[error("{0}")]
    Disks(String),
    #[error("could not run systemctl")]
    Systemctl(#[from] std::io::Error),
}

/// One call of `nodeadm init`.
#[derive(Debug)]
pub(super) struct Init {
    pub(super) root: PathBuf,
    pub(super) sources: Vec<String>,
    pub(super) cache: Option<PathBuf>,
    pub(super) config: bool,
    pub(super) run: bool,
    pub(super) daemons: Vec<&'static str>,
}

/// What the cache holds: the merged specification, and what was found out for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Cached {
    spec: NodeConfigSpec,
    status: InstanceDetails,
}

impl Init {
    pub(super) async fn run(&self, imds: &Imds) -> Result<(), InitError> {
        log::info("Checking user is root..", &[]);
        log::info("Loading configuration..", &[("configSource", json!(self.sources))]);
        let cached = self.read_cache();
        let spec = match (sources::load(&self.root, &self.sources, imds).await, &cached) {
            (Err(SourceError::NoneInChain), Some(cached)) => cached.spec.clone(),
            (loaded, _) => loaded?,
        };
        let unchanged = cached.as_ref().filter(|cached| cached.spec == spec);
        let details = match unchanged {
            Some(cached) => cached.status.clone(),
            None => {
                log::info("Enriching configuration..", &[]);
                let wanted = Wanted {
                    private_dns_name: !spec.gate("InstanceIdNodeName"),
                    ipv6: spec.cluster.cidr.contains(':'),
                    proxies: &spec.environment_of("default"),
                };
                imds.details(wanted).await?
            }
        };
        log::info("Validating configuration..", &[]);
        spec.validate()?;
        // A configuration that changed since the config phase is written again, whatever is skipped.
        let changed = cached.is_some() && unchanged.is_none();
        if self.config || changed {
            self.config_phase(&spec, &details)?;
        }
        if self.run {
            self.run_phase(&spec).await?;
        }
        log::info("done!", &[]);
        Ok(())
    }

    fn read_cache(&self) -> Option<Cached> {
        let path = self.below(&self.cache.clone()?.to_string_lossy());
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn below(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, content: &[u8]) -> Result<(), DirectoryError> {
        write_atomically(&self.root.join(path), content, 0o644)
    }

    fn write_json(&self, path: &str, value: &Value) -> Result<(), DirectoryError> {
        self.write(path, &serde_json::to_vec_pretty(value).unwrap_or_default())
    }

    fn config_phase(
        &self,
        spec: &NodeConfigSpec,
        details: &InstanceDetails,
    ) -> Result<(), InitError> {
        self.configure_environment(spec)?;
        log::info("Configuring daemons...", &[]);
        if self.daemons.contains(&"containerd") {
            log::info("Configuring daemon...", &[("name", "containerd".into())]);
            let nvidia = self.root.join(containerd::NVIDIA_RUNTIME).exists();
            self.write_json(containerd::BASE_SPEC, &containerd::base_spec(spec))?;
            let text = containerd::configuration(spec, nvidia)?;
            self.write(containerd::CONFIG, text.as_bytes())?;
        }
        if self.daemons.contains(&"kubelet") {
            log::info("Configuring daemon...", &[("name", "kubelet".into())]);
            self.configure_kubelet(spec, details)?;
        }
        if let Some(cache) = &self.cache {
            let cached = Cached { spec: spec.clone(), status: details.clone() };
            let path = self.below(&cache.to_string_lossy());
            write_atomically(&path, &serde_json::to_vec(&cached).unwrap_or_default(), 0o644)?;
        }
        Ok(())
    }

    /// What every service is to have in its environment, and what one alone: for PID 1 to read.
    fn configure_environment(&self, spec: &NodeConfigSpec) -> Result<(), DirectoryError> {
        for service in spec.instance.environment.keys() {
            let variables = spec.environment_of(service);
            let quoted = variables.iter().map(|(key, value)| format!("\"{key}={value}\""));
            let (path, text) = match service.as_str() {
                "default" => {
                    let all = quoted.collect::<Vec<_>>().join(" ");
                    (
                        ENVIRONMENT_OF_ALL.to_owned(),
                        format!("[Manager]\nDefaultEnvironment={all}\n"),
                    )
                }
                service => {
                    let lines = quoted.map(|pair| format!("Environment={pair}\n"));
                    let text = format!("[Service]\n{}", lines.collect::<String>());
                    (format!("etc/systemd/system/{service}.service.d/environment.conf"), text)
                }
            };
            self.write(&path, text.as_bytes())?;
        }
        Ok(())
    }

    fn configure_kubelet(
        &self,
        spec: &NodeConfigSpec,
        details: &InstanceDetails,
    ) -> Result<(), InitError> {
        self.write_json(kubelet::CONFIG, &kubelet::configuration(spec, details))?;
        if let Some(drop_in) = kubelet::drop_in(spec) {
            self.write_json(kubelet::DROP_IN, &drop_in)?;
        }
        self.write(kubelet::KUBECONFIG, kubelet::kubeconfig(spec, details).as_bytes())?;
        require_program(&self.root, "etc/eks/image-credential-provider/ecr-credential-provider")?;
        self.write_json(kubelet::CREDENTIAL_PROVIDER, &kubelet::credential_provider())?;
        self.write(kubelet::CA, &spec.ca()?)?;
        self.write(kubelet::ENVIRONMENT, kubelet::environment(spec, details).as_bytes())?;
        Ok(())
    }

    async fn run_phase(&self, spec: &NodeConfigSpec) -> Result<(), InitError> {
        log::info("Setting up system aspect..", &[("name", "marker".into())]);
        self.write("run/nodeadm/init", b"")?;
        log::info("Setting up system aspect..", &[("name", "local-disk".into())]);
        self.set_up_disks(spec).await?;
        if !self.root.join("run/cloud-init/result.json").exists() {
            log::warn("Do not manually call nodeadm from user data", "cloud-init has not finished");
        }
        for daemon in &self.daemons {
            log::info("Ensuring daemon is running..", &[("name", (*daemon).into())]);
            let unit = format!("{daemon}.service");
            self.systemctl(&["restart", &unit]).await?;
            // Without a limit, as nodeadm does; whoever started us has one.
            while self.systemctl(&["is-active", &unit]).await?.trim() != "active" {
                tokio::time::sleep(POLL).await;
            }
            log::info("Daemon is running", &[("name", (*daemon).into())]);
        }
        Ok(())
    }

    /// The image's own script does it, and its words are its own.
    async fn set_up_disks(&self, spec: &NodeConfigSpec) -> Result<(), InitError> {
        let storage = &spec.instance.local_storage;
        if storage.strategy.is_empty() {
            log::info("Not configuring local disks!", &[]);
            return Ok(());
        }
        let mut arguments = vec![storage.strategy.to_lowercase()];
        if !storage.mount_path.is_empty() {
            arguments.extend(["--dir".to_owned(), storage.mount_path.clone()]);
        }
        let program = self.root.join("usr/bin/setup-local-disks");
        let ended = Command::new(program).args(arguments).stdin(Stdio::null()).status().await;
        match ended
            .map_err(|error| InitError::Disks(format!("exec: \"setup-local-disks\": {error}")))?
        {
            status if status.success() => Ok(()),
            status => Err(InitError::Disks(match status.code() {
                Some(code) => format!("exit status {code}"),
                None => status.to_string(),
            })),
        }
    }

    async fn systemctl(&self, arguments: &[&str]) -> std::io::Result<String> {
        let output = Command::new(self.root.join("usr/bin/systemctl"))
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .output()
            .await?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn require_program(root: &Path, path: &str) -> Result<(), InitError> {
    if root.join(path).is_file() {
        return Ok(());
    }
    Err(InitError::CredentialProvider(format!("stat /{path}: no such file or directory")))
}
