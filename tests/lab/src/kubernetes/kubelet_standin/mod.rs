//! The double of kubelet on a process node, and of what kubelet would run there.
//!
//! A process of its own per node, started by the node's systemctl double as `ROOT/usr/bin/kubelet`.
//! It reads what nodeadm wrote ([`settings`]), makes its token from the instance's role credentials
//! ([`eks_token`], which equals `aws eks get-token`), registers the Node object ([`node`]), keeps lease
//! and status, and "runs" the pods bound to it ([`pods`]): the VPC CNI's daemon writes the CNI configuration
//! ([`cni`]), the device plugin offers the GPUs that NVML shows ([`gpus`]). No container is started.
//!
//! How it behaves in a fault is read from files in the node's root ([`knobs`]).

mod api;
mod cni;
mod gpus;
mod imds;
mod klog;
mod knobs;
mod node;
mod pods;
pub(super) mod run;
mod settings;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

pub use knobs::Knobs;

/// Where one node's kubelet stand-in lives.
#[derive(Debug, Clone)]
pub struct KubeletOptions {
    /// The node's root directory.
    pub root: PathBuf,
    /// The node's own loopback address.
    pub address: IpAddr,
    /// The node's instance metadata service.
    pub imds: String,
    /// The arguments that nodeadm wrote, where they come by environment.
    pub arguments: Option<String>,
    /// The proxy to the API server, where its environment names one (`HTTPS_PROXY`).
    pub proxy: Option<String>,
}

/// Why kubelet does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KubeletError {
    /// The environment lacks a variable.
    #[error("`{0}` is not set: it is the node's systemctl double that starts this program")]
    Environment(&'static str),
    /// A file of nodeadm's is missing or not readable.
    #[error("failed to load kubelet config file, path: {path}, error: {why}")]
    Config {
        /// The file, as the node sees it.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// An argument that kubelet refuses.
    #[error("failed to validate kubelet flags: {0}")]
    Flags(String),
    /// The runtime or the health server could not be started.
    #[error("could not {what}")]
    Start {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// No client could be made.
    #[error("could not make a client for the API server: {0}")]
    Client(String),
}

impl KubeletOptions {
    /// Reads the environment that the systemctl double sets.
    ///
    /// # Errors
    ///
    /// Names the variable that is missing.
    pub fn from_env() -> Result<Self, KubeletError> {
        let read = |name| std::env::var(name).map_err(|_| KubeletError::Environment(name));
        let address = read("ROLLCALL_NODE_ADDRESS")?;
        Ok(Self {
            root: read("ROLLCALL_NODE_ROOT")?.into(),
            address: address
                .parse()
                .map_err(|_| KubeletError::Environment("ROLLCALL_NODE_ADDRESS"))?,
            imds: read("AWS_EC2_METADATA_SERVICE_ENDPOINT")?,
            arguments: std::env::var("NODEADM_KUBELET_ARGS").ok(),
            proxy: std::env::var("HTTPS_PROXY").ok().filter(|proxy| !proxy.is_empty()),
        })
    }
}

/// Runs the kubelet stand-in until SIGTERM. It ends with an error where kubelet would.
#[must_use]
pub fn main() -> ExitCode {
    let ran = KubeletOptions::from_env().and_then(|options| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|source| KubeletError::Start { what: "start the runtime", source })?;
        let ran = runtime.block_on(run::run(&options));
        // A probe that hangs in the driver must not keep the process alive.
        runtime.shutdown_background();
        ran
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = contract::ErrorChain(&error).to_string();
            klog::error("run.go:72", "command failed", &[("err", &error)]);
            ExitCode::FAILURE
        }
    }
}
