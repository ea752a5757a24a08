//! Machine nodes: systemd as PID 1 in namespaces, the real nodeadm, containerd and kubelet, a
//! network of their own with IMDS at its real address, and user data run as cloud-init runs it.
//!
//! What a machine is made of: [`image`] (AL2023's files and units), [`network`], [`console`], and
//! two scripts, `start.sh` and `init.sh`, that build its namespaces and its root. [`ground`] is what
//! machines share, [`disk`] what an image holds of one, [`power`] one boot of one machine, [`remains`] how they are taken away.

pub mod cloud_init_double;
mod console;
mod container_images;
mod disk;
mod firewall;
mod ground;
mod holder;
mod image;
mod network;
mod power;
mod remains;
mod settings;
mod sts;
mod units;
mod users;

use std::path::Path;
use std::process::{Command, Stdio};

use crate::directory::DirectoryError;
use crate::kubernetes::real::{Parts, PartsError};
pub use disk::keep;
pub use ground::{Ground, Wire};
pub use image::write_units;
pub use network::ENDPOINT;
pub use power::{Ending, Machine, init_of, pid_of};
pub use remains::sweep;

/// What machines need besides a control plane's parts.
const PARTS: [&str; 12] = [
    "nodeadm",
    "device-plugin-double",
    "busybox-static",
    "awscli",
    "pause",
    "debian",
    "containerd",
    "runc",
    "containernetworking-plugins",
    "dbus",
    "systemd",
    "nftables",
];

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// Namespaces and mounts are root's.
    #[error("machine nodes need root")]
    NotRoot,
    /// Machines are made for this host's control groups.
    #[error("machine nodes need a host with systemd's hierarchy of cgroup v1")]
    Cgroups,
    /// A part is missing.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// Another lab has machines.
    #[error(
        "another lab has this machine's bridge `{bridge}`, the one in {0}: end it with lab down", bridge = network::BRIDGE
    )]
    Taken(String),
    /// The network cannot be made.
    #[error("could not change the network: {why}: {batch}")]
    Network {
        /// What was asked of `ip`.
        batch: String,
        /// What it said.
        why: String,
    },
    /// No IMDS.
    #[error("could not listen for IMDS in `{path}`")]
    Imds {
        /// The namespace.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A relay to the emulator cannot listen.
    #[error("could not listen for AWS on `{address}`")]
    Relay {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No certificate could be made.
    #[error("could not make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// The certificate cannot be used.
    #[error("could not set up TLS")]
    Tls(#[from] rustls::Error),
    /// A file.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A file or program.
    #[error("could not {0}")]
    System(String, #[source] std::io::Error),
}

/// Whether machine nodes can be started here and now: nobody else has this host's, and the kernel
/// makes their namespaces.
///
/// # Errors
/// When they cannot.
pub fn available() -> Result<(), MachineError> {
    check()?;
    if let Some(other) = holder::Holder::read().filter(holder::Holder::is_alive) {
        return Err(MachineError::Taken(other.lab.display().to_string()));
    }
    if !Path::new("/sys/fs/cgroup/systemd").is_dir() {
        return Err(MachineError::Cgroups);
    }
    let arguments = ["--fork", "--pid", "--mount", "--uts", "--ipc", "--cgroup", "--time", "true"];
    let tried = Command::new("unshare").args(arguments).stdin(Stdio::null()).output();
    let tried = tried.map_err(|e| MachineError::System("start `unshare`".into(), e))?;
    if tried.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
    Err(MachineError::System("make a machine's namespaces".into(), std::io::Error::other(why)))
}

/// Whether this machine can have machine nodes, and with which parts.
///
/// # Errors
/// When it cannot, with what is missing.
pub fn check() -> Result<Parts, MachineError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(MachineError::NotRoot);
    }
    let parts = Parts::find()?;
    for part in PARTS {
        parts.path(part)?;
    }
    Ok(parts)
}
