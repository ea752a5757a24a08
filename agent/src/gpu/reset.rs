//! The reset of one GPU: the only place that does it. Root's work, and never while something runs there.
//!
//! After the join the watch asks, by a file that names the GPU; a path unit starts
//! `rollcall-agent reset-gpu`, which looks for itself whether anything uses the GPU, resets it with
//! NVIDIA's own program, and leaves a result. The request is not trusted: it may name a GPU of this
//! machine and nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use contract::agent_config::GpuReset;
use contract::names::{GPU_RESET_REQUEST, GPU_RESET_RESULT};
use contract::{AgentConfig, ErrorChain};
use serde::{Deserialize, Serialize};

use super::{module, pci};
use crate::host::files::{self, FileError};
use crate::host::{Deadline, Root, clock, exec};

/// How long all of it may take; the watch stands aside for as long.
pub const LIMIT: Duration = Duration::from_secs(60);
/// How long whoever has the GPU open may take to let go of it: the watch's own helper does.
const LET_GO: Duration = Duration::from_secs(15);
/// Between two looks at who has it open.
const POLL: Duration = Duration::from_millis(250);
/// NVIDIA's own program.
const NVIDIA_SMI: &str = "/usr/bin/nvidia-smi";
/// Who may have it open: nvidia-smi speaks to them itself.
const DAEMONS: [&str; 2] = ["nvidia-persistenced", "nv-fabricmanager"];

/// How a reset ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Outcome {
    /// PCI address of the GPU.
    pub pci: String,
    /// When it ended, RFC 3339.
    pub at: String,
    /// The boot in which it was.
    pub boot: String,
    /// Whether the GPU was reset.
    pub done: bool,
    /// One sentence.
    pub detail: String,
}

/// Why there was none.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// Nothing that can be read asks for one.
    #[error("no request for a reset can be read")]
    Request(#[source] FileError),
    /// What is asked for is no GPU of this machine.
    #[error("the request names `{0}`, which is no GPU of this node")]
    NoSuchGpu(String),
    /// The pool's configuration does not allow it.
    #[error("the agent's configuration does not say `gpuReset: on`")]
    NotAllowed,
    /// Something has it open.
    #[error("in use by {0}")]
    InUse(String),
    /// nvidia-smi did not do it.
    #[error("nvidia-smi did not reset it: {0}")]
    Refused(String),
    /// nvidia-smi could not be run, or did not end.
    #[error("nvidia-smi could not be asked to reset it")]
    Exec(#[source] exec::ExecError),
    /// The result cannot be left.
    #[error("the result of the reset cannot be left")]
    Result(#[source] FileError),
}

/// Does what the watch asks for, and leaves how it ended.
///
/// # Errors
/// When the result cannot be left; anything else is the result.
pub async fn serve(root: &Root) -> Result<(), ResetError> {
    serve_within(root, LET_GO).await
}

async fn serve_within(root: &Root, let_go: Duration) -> Result<(), ResetError> {
    let (pci, ended) = match take_request(root) {
        Ok(pci) => {
            let ended = match is_allowed(root) {
                true => reset(root, &pci, let_go, Deadline::within(LIMIT)).await,
                false => Err(ResetError::NotAllowed),
            };
            (pci, ended)
        }
        Err(error) => (String::new(), Err(error)),
    };
    let outcome = Outcome {
        pci,
        at: clock::now(),
        boot: clock::boot_id(root).unwrap_or_default(),
        done: ended.is_ok(),
        detail: match &ended {
            Ok(()) => "reset".to_owned(),
            Err(error) => ErrorChain(error).to_string(),
        },
    };
    tracing::info!(pci = outcome.pci, done = outcome.done, detail = outcome.detail, "GPU reset");
    let path = root.path(GPU_RESET_RESULT);
    let text = serde_json::to_vec(&outcome).unwrap_or_default();
    let made = path.parent().map_or(Ok(()), |directory| files::make_dir(directory, 0o755));
    made.and_then(|()| files::write_atomic(&path, &text, 0o644)).map_err(ResetError::Result)?;
    // Last: while it lies there, the watch has no GPU open.
    files::remove(&root.path(GPU_RESET_REQUEST)).map_err(ResetError::Result)
}

fn take_request(root: &Root) -> Result<String, ResetError> {
    let text = files::read_text(&root.path(GPU_RESET_REQUEST)).map_err(ResetError::Request)?;
    let asked = text.trim();
    let gpus = pci::gpus(root).unwrap_or_default();
    let known = gpus.into_iter().find(|gpu| gpu.address == asked);
    known.map(|gpu| gpu.address).ok_or_else(|| {
        ResetError::NoSuchGpu(asked.chars().take(32).filter(|c| !c.is_control()).collect())
    })
}

fn is_allowed(root: &Root) -> bool {
    let text = files::read_text(&root.path(contract::names::AGENT_CONFIG_PATH)).unwrap_or_default();
    let config = serde_yaml::from_str::<AgentConfig>(&text);
    config.is_ok_and(|config| config.gpu_reset == GpuReset::On)
}

/// Resets the GPU at `pci`, once nobody has it open; that is waited for, for as long as `let_go`.
///
/// # Errors
/// When somebody keeps it, or nvidia-smi does not do it.
pub async fn reset(
    root: &Root,
    pci: &str,
    let_go: Duration,
    deadline: Deadline,
) -> Result<(), ResetError> {
    until_free(root, pci, deadline.at_most(let_go)).await?;
    let arguments = ["--gpu-reset", "-i", pci];
    let ended = exec::run(&root.path(NVIDIA_SMI), &arguments, deadline).await;
    let output = ended.map_err(ResetError::Exec)?;
    if output.success() {
        return Ok(());
    }
    let said = if output.stderr.trim().is_empty() { output.stdout } else { output.stderr };
    Err(ResetError::Refused(said.trim().chars().take(200).collect()))
}

/// Waits until nobody has the GPU at `pci` open, as far as we may look.
///
/// # Errors
/// When somebody keeps it, with who.
pub async fn until_free(root: &Root, pci: &str, patience: Deadline) -> Result<(), ResetError> {
    loop {
        let users = users(root, pci);
        if users.is_empty() {
            return Ok(());
        }
        if patience.has_passed() {
            let users: Vec<String> = users.into_iter().collect();
            return Err(ResetError::InUse(users.join(", ")));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The processes that have the GPU's device node open, by name and pid.
fn users(root: &Root, pci: &str) -> BTreeSet<String> {
    let Some(node) = device_node(root, pci) else { return BTreeSet::new() };
    let proc = root.path("/proc");
    let processes = files::names_in(&proc).into_iter().filter(|name| name.parse::<u32>().is_ok());
    let has_open = |pid: &String| {
        let descriptors = proc.join(pid).join("fd");
        files::names_in(&descriptors)
            .iter()
            .filter_map(|number| std::fs::read_link(descriptors.join(number)).ok())
            .any(|target| target == std::path::Path::new(&node))
    };
    let name = |pid: &String| {
        let name = files::read_text(&proc.join(pid).join("comm")).unwrap_or_default();
        name.trim().to_owned()
    };
    processes
        .filter(has_open)
        .map(|pid| (name(&pid), pid))
        // `comm` holds fifteen bytes.
        .filter(|(name, _)| {
            name.is_empty() || !DAEMONS.iter().any(|daemon| daemon.starts_with(name.as_str()))
        })
        .map(|(name, pid)| format!("{name} (pid {pid})"))
        .collect()
}

/// `/dev/nvidia3`: the driver says which minor number a GPU has.
fn device_node(root: &Root, pci: &str) -> Option<String> {
    let path = root.path("/proc/driver/nvidia/gpus").join(pci).join("information");
    let text = files::read_text(&path).ok();
    let minor = text.as_deref().and_then(|text| {
        text.lines().find_map(|line| line.strip_prefix("Device Minor:")?.trim().parse::<u32>().ok())
    });
    // Without that file: the nodes are numbered in the order of the bus.
    let by_order = || {
        let index = pci::gpus(root)?.iter().position(|gpu| gpu.address == pci)?;
        module::read(root).device_nodes.get(index).copied()
    };
    minor.or_else(by_order).map(|minor| format!("/dev/nvidia{minor}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// A node with two GPUs and a double of nvidia-smi that writes down what it is asked.
    struct Node {
        directory: tempfile::TempDir,
        root: Root,
    }

    impl Node {
        fn new(config: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let root = Root::new(directory.path());
            let node = Self { directory, root };
            for (index, pci) in ["0000:53:00.0", "0000:64:00.0"].iter().enumerate() {
                node.write(&format!("/sys/bus/pci/devices/{pci}/vendor"), "0x10de\n");
                node.write(&format!("/sys/bus/pci/devices/{pci}/class"), "0x030200\n");
                let information = format!("/proc/driver/nvidia/gpus/{pci}/information");
                node.write(&information, &format!("Model: x\nDevice Minor: \t {index}\n"));
            }
            node.write("/proc/sys/kernel/random/boot_id", "one\n");
            node.write("/etc/rollcall/agent.yaml", config);
            node.write("/run/rollcall-watch/.keep", "");
            let asked = node.directory.path().join("asked");
            node.program(&format!("echo \"$@\" >>{}", asked.display()));
            node
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.root.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn program(&self, script: &str) {
            self.write(NVIDIA_SMI, &format!("#!/bin/sh\n{script}\n"));
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(self.root.path(NVIDIA_SMI), mode).unwrap();
        }

        async fn serve(&self, request: &str) -> Outcome {
            self.write(GPU_RESET_REQUEST, request);
            serve_within(&self.root, Duration::from_millis(300)).await.unwrap();
            assert!(!self.root.path(GPU_RESET_REQUEST).exists(), "the request is taken away");
            let text = files::read(&self.root.path(GPU_RESET_RESULT)).unwrap();
            serde_json::from_slice(&text).unwrap()
        }

        fn asked(&self) -> String {
            fs::read_to_string(self.directory.path().join("asked")).unwrap_or_default()
        }
    }

    const ON: &str = "version: 1\ncluster: c\npool: p\ngpuReset: on\n";

    #[tokio::test]
    async fn a_gpu_that_nobody_uses_is_reset() {
        let node = Node::new(ON);
        let outcome = node.serve("0000:64:00.0\n").await;
        assert_eq!(
            (outcome.done, outcome.detail.as_str(), outcome.boot.as_str()),
            (true, "reset", "one")
        );
        assert_eq!(node.asked(), "--gpu-reset -i 0000:64:00.0\n");
    }

    #[tokio::test]
    async fn one_in_use_is_left_alone() {
        let node = Node::new(ON);
        for (pid, comm, target) in [
            ("10", "nvidia-persiste", "/dev/nvidia1"),
            ("9", "nv-fabricmanage", "/dev/nvidia1"),
            ("11", "python3", "/dev/nvidia1"),
            ("12", "sh", "/dev/nvidia0"),
        ] {
            node.write(&format!("/proc/{pid}/comm"), &format!("{comm}\n"));
            fs::create_dir_all(node.root.path(format!("/proc/{pid}/fd"))).unwrap();
            symlink(target, node.root.path(format!("/proc/{pid}/fd/7"))).unwrap();
        }
        let outcome = node.serve("0000:64:00.0").await;
        assert_eq!((outcome.done, outcome.detail.as_str()), (false, "in use by python3 (pid 11)"));
        assert_eq!(node.asked(), "");
    }

    #[tokio::test]
    async fn what_is_asked_is_not_trusted() {
        for (config, request, says) in [
            (ON, "0000:99:00.0", "names `0000:99:00.0`, which is no GPU"),
            (ON, "../../etc/passwd; reboot", "which is no GPU"),
            (ON, "", "names ``"),
            ("version: 1\ncluster: c\npool: p\n", "0000:64:00.0", "does not say `gpuReset: on`"),
            ("nonsense", "0000:64:00.0", "does not say `gpuReset: on`"),
        ] {
            let node = Node::new(config);
            let outcome = node.serve(request).await;
            assert!(
                !outcome.done && outcome.detail.contains(says),
                "{request}: {}",
                outcome.detail
            );
            assert_eq!(node.asked(), "", "{request}");
        }
    }

    #[tokio::test]
    async fn what_nvidia_smi_says_is_the_result() {
        let node = Node::new(ON);
        node.program("echo 'GPU is currently in use by another process' >&2; exit 19");
        let outcome = node.serve("0000:53:00.0").await;
        assert!(!outcome.done && outcome.detail.contains("currently in use"), "{}", outcome.detail);
    }
}
