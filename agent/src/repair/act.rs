//! The repairs themselves: programs of the node, each with a deadline.

use std::time::Duration;

use contract::names::{
    GPUS_TO_RESET_PATH, UNIT_KUBELET, UNIT_REPAIR_LOAD, UNIT_REPAIR_RESET, UNIT_REPAIR_UNLOAD,
};

use super::rungs::{Rung, Step};
use crate::gpu::reset::{self, ResetError};
use crate::host::exec::{self, ExecError, Output};
use crate::host::files::{self, FileError};
use crate::host::systemd::Systemd;
use crate::host::{Deadline, Root};

/// How much of a unit's log is kept when it failed.
const LOG_LINES: u32 = 4;
/// Daemons that keep the driver busy while they run.
const DAEMONS: [&str; 2] = ["nvidia-fabricmanager.service", "nvidia-persistenced.service"];
/// How long whoever has a GPU open may take to let go of it before a reset.
const LET_GO: Duration = Duration::from_secs(5);
/// How long systemd may take to say how a unit is.
const QUESTION: Duration = Duration::from_secs(5);

/// Why a repair was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// A program could not be run, or did not end in time.
    #[error("could not {action}")]
    Run {
        /// What was to be done.
        action: String,
        /// Why not.
        #[source]
        source: ExecError,
    },
    /// A program said no.
    #[error("could not {action}: {said}")]
    Refused {
        /// What was to be done.
        action: String,
        /// The program's words.
        said: String,
    },
    /// Somebody has a GPU open that is to be reset.
    #[error("GPU {gpu} was not reset")]
    InUse {
        /// Its PCI address.
        gpu: String,
        /// By whom.
        #[source]
        source: ResetError,
    },
    /// The GPUs to reset could not be told.
    #[error("could not say which GPUs to reset")]
    Tell(#[from] FileError),
    /// The node was told to reboot, and still runs.
    #[error("the node was told to reboot, and runs still")]
    NotRebooted,
}

/// Whether kubelet runs, or whether that cannot be told: then nothing is touched.
pub async fn is_in_service(root: &Root) -> bool {
    let systemd = Systemd::new(root.clone());
    let asked = tokio::time::timeout(QUESTION, systemd.show(UNIT_KUBELET)).await;
    match asked {
        Ok(Ok(unit)) => unit.is_active() || unit.is_pending(),
        Ok(Err(_)) | Err(_) => true,
    }
}

/// Carries out a step.
///
/// # Errors
/// When a program of the node cannot be run, or refuses.
pub async fn carry_out(root: &Root, step: &Step) -> Result<(), RepairError> {
    let deadline = Deadline::within(step.rung.cap());
    let node = Node { root, deadline };
    match step.rung {
        Rung::AskAgain(_) => {
            tokio::time::sleep(deadline.remaining()).await;
            Ok(())
        }
        Rung::Restart(unit) => node.systemctl(&["restart", unit]).await,
        Rung::Reload => node.reload().await,
        Rung::Reset => node.reset(&step.gpus).await,
        Rung::Reboot => node.reboot().await,
    }
}

struct Node<'a> {
    root: &'a Root,
    deadline: Deadline,
}

impl Node<'_> {
    async fn run(&self, program: &str, arguments: &[&str]) -> Result<(), RepairError> {
        let action = || format!("run `{program} {}`", arguments.join(" "));
        let ended = exec::run(&self.root.path(program), arguments, self.deadline).await;
        let output = ended.map_err(|source| RepairError::Run { action: action(), source })?;
        match output.success() {
            true => Ok(()),
            false => Err(RepairError::Refused { action: action(), said: words(&output) }),
        }
    }

    async fn systemctl(&self, arguments: &[&str]) -> Result<(), RepairError> {
        self.run("/usr/bin/systemctl", arguments).await
    }

    /// The daemons that ran before run afterwards, whatever happens in between.
    async fn reload(&self) -> Result<(), RepairError> {
        let systemd = Systemd::new(self.root.clone());
        let mut stopped = Vec::new();
        for daemon in DAEMONS {
            if systemd.show(daemon).await.is_ok_and(|unit| unit.is_active()) {
                self.systemctl(&["stop", daemon]).await?;
                stopped.push(daemon);
            }
        }
        let reloaded = self.change_modules().await;
        for daemon in stopped.into_iter().rev() {
            if let Err(error) = self.systemctl(&["start", daemon]).await {
                tracing::warn!(error = %contract::ErrorChain(&error), "a daemon did not come back");
            }
        }
        reloaded
    }

    async fn change_modules(&self) -> Result<(), RepairError> {
        self.unit(UNIT_REPAIR_UNLOAD).await?;
        self.unit(UNIT_REPAIR_LOAD).await
    }

    /// All of them, and the first error of any. None while somebody has one of them open: nothing has been
    /// admitted, but a user's script may run.
    async fn reset(&self, gpus: &[String]) -> Result<(), RepairError> {
        for gpu in gpus {
            let patience = self.deadline.at_most(LET_GO);
            let free = reset::until_free(self.root, gpu, patience).await;
            free.map_err(|source| RepairError::InUse { gpu: gpu.clone(), source })?;
        }
        let list = gpus.iter().map(|gpu| format!("{gpu}\n")).collect::<String>();
        let path = self.root.path(GPUS_TO_RESET_PATH);
        files::write_for_this_boot(&path, list.as_bytes(), 0o644)?;
        self.unit(UNIT_REPAIR_RESET).await
    }

    /// Runs a oneshot to its end: what this process's sandbox forbids, PID 1 does for it.
    async fn unit(&self, unit: &str) -> Result<(), RepairError> {
        let systemd = Systemd::new(self.root.clone());
        let action = || format!("run `{unit}`");
        let output = match systemd.start(unit, self.deadline).await {
            Ok(output) => output,
            Err(source) => {
                // The next rung must not meet this one at work.
                if let Err(error) = systemd.stop_soon(unit).await {
                    tracing::warn!(unit, error = %contract::ErrorChain(&error), "not stopped");
                }
                return Err(RepairError::Run { action: action(), source });
            }
        };
        if output.success() {
            return Ok(());
        }
        let log = systemd.tail(unit, LOG_LINES).await;
        let said = if log.is_empty() { words(&output) } else { log.join("; ") };
        Err(RepairError::Refused { action: action(), said })
    }

    /// Comes back only when the node has not rebooted.
    async fn reboot(&self) -> Result<(), RepairError> {
        self.systemctl(&["reboot"]).await?;
        tokio::time::sleep(self.deadline.remaining()).await;
        Err(RepairError::NotRebooted)
    }
}

fn words(output: &Output) -> String {
    let said = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
    let code = output.code.map_or("a signal".to_owned(), |code| format!("code {code}"));
    match said.trim() {
        "" => code,
        said => format!("{code}: {}", said.chars().take(300).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_gpu_that_somebody_has_open_is_not_reset() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        let pci = "0000:53:00.0";
        let write = |path: &str, text: &str| {
            let path = root.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(&format!("/proc/driver/nvidia/gpus/{pci}/information"), "Device Minor: \t 0\n");
        write("/proc/17/comm", "python3\n");
        fs::create_dir_all(root.path("/proc/17/fd")).unwrap();
        std::os::unix::fs::symlink("/dev/nvidia0", root.path("/proc/17/fd/5")).unwrap();
        let node = Node { root: &root, deadline: Deadline::within(Duration::from_millis(300)) };
        let ended = node.reset(&[pci.to_owned()]).await;
        let error = contract::ErrorChain(&ended.unwrap_err()).to_string();
        assert_eq!(error, format!("GPU {pci} was not reset: in use by python3 (pid 17)"));
        assert!(!root.path(GPUS_TO_RESET_PATH).exists());
    }

    #[tokio::test]
    async fn what_does_not_end_in_time_is_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        let asked = directory.path().join("asked");
        for folder in ["/usr/bin", "/run/rollcall"] {
            fs::create_dir_all(root.path(folder)).unwrap();
        }
        let systemctl = root.path("/usr/bin/systemctl");
        let script = "[ $1 = start ] && exec sleep 60";
        let text = format!("#!/bin/sh\necho \"$@\" >>{}\n{script}\nexit 0\n", asked.display());
        fs::write(&systemctl, text).unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        let node = Node { root: &root, deadline: Deadline::within(Duration::from_millis(500)) };
        let ended = node.reset(&["0000:53:00.0".to_owned()]).await;
        assert!(matches!(ended, Err(RepairError::Run { .. })), "{ended:?}");
        let asked = fs::read_to_string(asked).unwrap();
        let stop = format!("stop --no-block {UNIT_REPAIR_RESET}");
        assert_eq!(asked.lines().last(), Some(stop.as_str()));
        assert_eq!(fs::read_to_string(root.path(GPUS_TO_RESET_PATH)).unwrap(), "0000:53:00.0\n");
    }
}
