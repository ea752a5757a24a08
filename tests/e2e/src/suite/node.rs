//! One node of the lab, looked at from inside: its console, its report, its units, its files.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use contract::names::{CONSOLE_PREFIX, REPORT_PATH};
use contract::{ConsoleLine, JoinReport};
use serde_json::Value;
use tokio::process::Command;

use crate::Finished;
use crate::programs::exit_code;

/// No question to a node takes longer, or the node is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node as `lab status` knew it when it was asked; after a reboot it has to be asked again.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its instance.
    pub instance: String,
    /// Its Node object's name.
    pub name: String,
    /// What the lab keeps of it: console, simulated GPUs, and of a process node everything.
    kept: PathBuf,
    /// The pid of its PID 1; none for a process node.
    init: Option<i32>,
}

impl Node {
    /// Reads an entry of `lab status`.
    ///
    /// # Errors
    /// When it is not one.
    pub fn of(entry: &Value) -> anyhow::Result<Self> {
        let text = |key: &str| entry[key].as_str().with_context(|| format!("no `{key}`: {entry}"));
        Ok(Self {
            instance: text("instance")?.to_owned(),
            name: text("name")?.to_owned(),
            kept: PathBuf::from(text("root")?),
            init: entry["machine"]["init"].as_i64().and_then(|pid| i32::try_from(pid).ok()),
        })
    }

    /// Whether its PID 1 is systemd by now: before that it is what builds the machine's root.
    #[must_use]
    pub fn has_booted(&self) -> bool {
        let Some(init) = self.init else { return false };
        std::fs::read_link(format!("/proc/{init}/exe")).is_ok_and(|exe| exe.ends_with("systemd"))
    }

    /// Where a file of the node is on this machine.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        let root = match self.init {
            Some(init) => PathBuf::from(format!("/proc/{init}/root")),
            None => self.kept.clone(),
        };
        root.join(inside.trim_start_matches('/'))
    }

    /// Runs a program on the node, and captures what it says.
    ///
    /// # Errors
    /// When it cannot be run or does not end.
    pub async fn run(&self, command: &[&str]) -> anyhow::Result<Finished> {
        let mut program = match self.init {
            Some(init) => {
                let mut program = Command::new("nsenter");
                program.args(["-t", &init.to_string(), "-a"]).args(command);
                program
            }
            None => {
                let mut program = Command::new(self.path("/usr/bin").join(command[0]));
                program.args(&command[1..]).env("ROLLCALL_NODE_ROOT", &self.kept);
                program
            }
        };
        program.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin");
        let ended = tokio::time::timeout(PATIENCE, program.kill_on_drop(true).output());
        let line = || format!("`{}` on {}", command.join(" "), self.instance);
        let ended = ended.await.with_context(|| format!("{} has not ended", line()))?;
        let ended = ended.with_context(|| format!("could not run {}", line()))?;
        Ok(Finished {
            code: exit_code(ended.status),
            stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
        })
    }

    /// Runs a program on the node that has to succeed; gives its output without the last line feed.
    ///
    /// # Errors
    /// When it fails.
    pub async fn asked(&self, command: &[&str]) -> anyhow::Result<String> {
        let ended = self.run(command).await?;
        let (line, Finished { code, stdout, stderr }) = (command.join(" "), ended);
        ensure!(code == 0, "`{line}` on {} ended with {code}: {stdout}{stderr}", self.instance);
        Ok(stdout.trim_end().to_owned())
    }

    /// A property of a unit, as `systemctl show` prints it.
    ///
    /// # Errors
    /// When PID 1 does not answer.
    pub async fn property(&self, unit: &str, property: &str) -> anyhow::Result<String> {
        self.asked(&["systemctl", "show", "-p", property, "--value", unit]).await
    }

    /// The pid of kubelet's last run, 0 when it was never started in this boot.
    ///
    /// # Errors
    /// When PID 1 does not answer.
    pub async fn kubelet(&self) -> anyhow::Result<String> {
        self.property("kubelet.service", "ExecMainPID").await
    }

    /// What the node has printed on its console since its launch.
    #[must_use]
    pub fn console(&self) -> String {
        let file = std::fs::read(self.kept.join("dev/console")).unwrap_or_default();
        String::from_utf8_lossy(&file).into_owned()
    }

    /// Our lines on the console, oldest first.
    #[must_use]
    pub fn said(&self) -> Vec<ConsoleLine> {
        let console = self.console();
        let ours = console.lines().filter(|line| line.contains(CONSOLE_PREFIX));
        ours.filter_map(ConsoleLine::last_in).collect()
    }

    /// Whether the console has named a reason.
    #[must_use]
    pub fn has_named(&self, reason: &str) -> bool {
        self.said().iter().any(|line| line.reasons.iter().any(|r| r.as_str() == reason))
    }

    /// The join report on the node.
    ///
    /// # Errors
    /// When there is none yet.
    pub fn report(&self) -> anyhow::Result<JoinReport> {
        let path = self.path(REPORT_PATH);
        let bytes = std::fs::read(&path).with_context(|| format!("no `{}`", path.display()))?;
        serde_json::from_slice(&bytes).context("the report is torn")
    }
}
