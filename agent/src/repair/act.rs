//! The repairs themselves: programs of the node, each with a deadline.

use std::time::Duration;

use contract::names::UNIT_KUBELET;

use super::rungs::{Rung, Step};
use crate::host::exec::{self, ExecError, Output};
use crate::host::systemd::Systemd;
use crate::host::{Deadline, Root};

const NVIDIA_SMI: &str = "/usr/bin/nvidia-smi";
const MODPROBE: &str = "/usr/sbin/modprobe";
/// The driver's modules, those that use the others first.
const MODULES: [&str; 4] = ["nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia"];
/// Daemons that keep the driver busy while they run.
const DAEMONS: [&str; 2] = ["nvidia-fabricmanager.service", "nvidia-persistenced.service"];
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
        let loaded = crate::gpu::module::loaded(self.root);
        let out: Vec<&str> =
            MODULES.into_iter().filter(|module| loaded.iter().any(|name| name == module)).collect();
        if !out.is_empty() {
            self.run(MODPROBE, &[&["-r"], out.as_slice()].concat()).await?;
        }
        self.run(MODPROBE, &["nvidia"]).await?;
        self.run(MODPROBE, &["nvidia_uvm"]).await
    }

    /// All of them, and the first error of any.
    async fn reset(&self, gpus: &[String]) -> Result<(), RepairError> {
        let mut ended = Ok(());
        for gpu in gpus {
            let reset = self.run(NVIDIA_SMI, &["--gpu-reset", "-i", gpu]).await;
            ended = ended.and(reset);
        }
        ended
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
