//! Machine nodes: systemd as PID 1 in namespaces, the real nodeadm, containerd and kubelet, a
//! network of their own with IMDS at its real address, and user data run as cloud-init runs it.
//!
//! What a machine is made of: [`image`] (AL2023's files and units), [`network`], [`console`], and
//! two scripts, `start.sh` and `init.sh`, that build its namespaces and its root.

pub mod cloud_init_double;
mod console;
mod container_images;
mod image;
mod network;
mod units;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::aws::Instance;
use crate::directory::DirectoryError;
use crate::kubernetes::real::relay::{self, CutOff, Mode};
use crate::kubernetes::real::{Parts, PartsError};
use crate::processes::{self, ProcessId};
use console::Console;
pub use network::ENDPOINT;

/// What machines need besides a control plane's parts.
const PARTS: [&str; 11] = [
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
];
/// Machine-wide settings that kubelet changes, and the lab puts back.
const SETTINGS: [&str; 3] = ["kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory"];
/// How long a machine's processes may take to go after SIGKILL.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// Namespaces and mounts are root's.
    #[error("machine nodes need root")]
    NotRoot,
    /// A part is missing.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// Another lab has machines.
    #[error(
        "the bridge `{0}` exists: another lab with machine nodes is up, or was killed; end it with lab down"
    )]
    Taken(&'static str),
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
    /// A file.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A file or program.
    #[error("could not {0}")]
    System(String, #[source] std::io::Error),
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

/// What all machines of a lab share: the bridge, AWS's addresses on it, images, the upper layer.
#[derive(Debug)]
pub struct Ground {
    parts: Parts,
    dir: PathBuf,
    lab: PathBuf,
    relays: Option<(watch::Sender<Mode>, Vec<JoinHandle<()>>)>,
    settings: Vec<(PathBuf, String)>,
}

impl Ground {
    /// Makes it below `dir`, the lab's own; `lab` is this program.
    ///
    /// # Errors
    /// When this machine cannot have machine nodes.
    pub fn lay(dir: &Path, lab: &Path) -> Result<Self, MachineError> {
        let parts = check()?;
        if network::exists() {
            return Err(MachineError::Taken(network::BRIDGE));
        }
        let settings = SETTINGS
            .iter()
            .map(|name| Path::new("/proc/sys").join(name))
            .filter_map(|path| std::fs::read_to_string(&path).ok().map(|value| (path, value)))
            .collect();
        network::create()?;
        let dir = dir.join("machines");
        let ground = Self { parts, dir, lab: lab.to_owned(), relays: None, settings };
        image::layer(&ground.dir, &ground.parts, &ground.lab)?;
        Ok(ground)
    }

    /// Brings AWS onto the bridge.
    ///
    /// # Errors
    /// When an address is not free.
    pub async fn relay(&mut self, emulator: &str) -> Result<(), MachineError> {
        let host = emulator.trim_start_matches("http://").trim_end_matches('/');
        let emulator = host.parse().map_err(|_| {
            MachineError::System(
                format!("find AWS at `{emulator}`"),
                std::io::ErrorKind::InvalidInput.into(),
            )
        })?;
        let (mode, receiver) = watch::channel(Mode::Open);
        let mut tasks = Vec::new();
        let services = network::SERVICES.map(|(_, address)| (address, network::SERVICE_PORT));
        let sts = (network::STS.1, network::STS.2);
        for address in services.into_iter().chain([sts]).map(std::net::SocketAddr::from) {
            let listener = TcpListener::bind(address)
                .await
                .map_err(|source| MachineError::Relay { address, source })?;
            let cut_off = CutOff::default();
            tasks.push(tokio::spawn(relay::run(
                listener,
                address,
                emulator,
                cut_off,
                receiver.clone(),
            )));
        }
        self.relays = Some((mode, tasks));
        Ok(())
    }

    /// Takes it all away; again does nothing.
    pub fn clear(&self) {
        if !network::exists() {
            return;
        }
        if let Some((mode, _)) = &self.relays {
            mode.send_replace(Mode::Stopped);
        }
        for (path, value) in &self.settings {
            if let Err(error) = std::fs::write(path, value) {
                tracing::warn!(path = %path.display(), %error, "setting not put back");
            }
        }
        if let Err(error) = network::remove() {
            tracing::warn!(%error, "bridge not removed");
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The short name of an instance's machine, as long as an interface's name allows.
fn name_of(instance_id: &str) -> &str {
    &instance_id[instance_id.len().saturating_sub(8)..]
}

/// A machine that runs.
#[derive(Debug)]
pub struct Machine {
    name: String,
    child: Child,
    _console: Console,
}

impl Machine {
    /// Makes the instance's network; answers the listener for its IMDS.
    ///
    /// # Errors
    /// When the network cannot be made.
    pub fn connect(instance: &Instance) -> Result<TcpListener, MachineError> {
        let name = name_of(&instance.instance_id);
        network::connect(name, &instance.private_ip, &instance.mac)?;
        network::imds_listener(name)
    }

    /// Powers the instance on. `node` is the node's directory, whose `root` holds the console and
    /// the simulated GPUs.
    ///
    /// # Errors
    /// When its files or its first process cannot be made.
    pub fn start(ground: &Ground, node: &Path, instance: &Instance) -> Result<Self, MachineError> {
        let name = name_of(&instance.instance_id);
        image::write(node, &ground.dir, &ground.parts, instance)?;
        let system = |what: &str, source| MachineError::System(what.to_owned(), source);
        let console = Console::open(&node.join("root/dev/console"))
            .map_err(|error| system("make a console", error))?;
        let child = Command::new(node.join("machine/start.sh"))
            .args([node.as_os_str(), name.as_ref(), console.terminal.as_os_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| system("start a machine", error))?;
        Ok(Self { name: name.to_owned(), child, _console: console })
    }

    /// Powers it off as EC2 does with an instance that is terminated: at once. Returns the processes
    /// that survived.
    pub async fn stop(mut self) -> Vec<ProcessId> {
        let family: Vec<ProcessId> = match self.child.id() {
            // The machine's systemd is unshare's child; with it go all processes of its namespace.
            Some(pid) => processes::descendants(pid.cast_signed()),
            None => Vec::new(),
        };
        for id in &family {
            id.signal(Signal::SIGKILL);
        }
        let gone = processes::all_gone(&family, GONE_WITHIN).await;
        if let Err(error) = self.child.kill().await {
            tracing::debug!(%error, "unshare had ended");
        }
        remove(&self.name).await;
        if gone { Vec::new() } else { family.into_iter().filter(|id| id.is_alive()).collect() }
    }
}

/// Removes what is left of a machine whose processes have gone.
async fn remove(name: &str) {
    if let Err(error) = network::disconnect(name) {
        tracing::warn!(%error, "namespace not removed");
    }
    let deadline = Instant::now() + GONE_WITHIN;
    while !remove_cgroups(name) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// True once none is left. A group can be removed a moment after its last process has gone.
fn remove_cgroups(name: &str) -> bool {
    let Ok(hierarchies) = std::fs::read_dir("/sys/fs/cgroup") else { return true };
    let mut clean = true;
    for hierarchy in hierarchies.flatten() {
        let all = hierarchy.path().join("rollcall-lab");
        clean &= remove_tree(&all.join(name));
        // The last machine takes the common parent along; others still need it.
        let _ = std::fs::remove_dir(all);
    }
    clean
}

/// `rmdir` from the leaves up: a cgroup's files cannot be removed, and need not be.
fn remove_tree(group: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(group) else { return true };
    let mut clean = true;
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())) {
        clean &= remove_tree(&entry.path());
    }
    clean && std::fs::remove_dir(group).is_ok()
}

/// Removes what a lab that was killed has left: machines, namespaces, cgroups, the bridge.
///
/// # Errors
/// When the bridge cannot be removed.
pub async fn sweep() -> Result<(), MachineError> {
    if !network::exists() {
        return Ok(());
    }
    for name in network::connected() {
        let members = Path::new("/sys/fs/cgroup/pids/rollcall-lab").join(&name);
        let family = members_of(&members);
        for id in &family {
            id.signal(Signal::SIGKILL);
        }
        processes::all_gone(&family, GONE_WITHIN).await;
        remove(&name).await;
    }
    network::remove()
}

fn members_of(group: &Path) -> Vec<ProcessId> {
    let listed = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let own = listed.lines().filter_map(|pid| ProcessId::of(pid.parse().ok()?));
    let mut members: Vec<ProcessId> = own.collect();
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            members.extend(members_of(&entry.path()));
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_have_names_that_the_kernel_takes() {
        assert_eq!(name_of("i-364dd578347dc7f10"), "47dc7f10");
        assert!(format!("rc-{}", name_of("i-364dd578347dc7f10")).len() <= 15);
        assert!(network::BRIDGE.len() <= 15);
    }
}
