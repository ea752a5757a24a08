//! Reads what a case's node has said, on every channel. The channels that cost a call are read only
//! when somebody waits for them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;

use contract::ConsoleLine;
use contract::names::{
    CONDITION_ACCELERATED_HARDWARE, CONDITION_GPU_NODE_HEALTHY, REPORT_PATH, TAG_JOIN, UNIT_JOIN,
};

use super::case::{Case, Channel};
use super::judge::Heard;
use super::metrics;
use super::stage::Stage;
use crate::systemctl_double::state::Store;

/// How long a node's systemctl may take.
const SYSTEMCTL: Duration = Duration::from_secs(90);

/// One case's node.
#[derive(Debug)]
pub struct Node<'a> {
    /// The stage.
    pub stage: &'a Stage,
    /// The case.
    pub case: &'a Case,
    /// Its instance.
    pub instance: String,
}

impl Node<'_> {
    /// Its files.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.stage.directory.node_root(&self.instance)
    }

    /// What lies on this machine: console, report, journal.
    #[must_use]
    pub fn near(&self) -> Heard {
        let root = self.root();
        let text = |path: PathBuf| {
            String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
        };
        let console = text(root.join("dev/console"));
        let report = std::fs::read(root.join(REPORT_PATH.trim_start_matches('/'))).ok();
        let journal = text(Store::of(&root).log(UNIT_JOIN));
        Heard {
            console: console.lines().filter_map(ConsoleLine::last_in).collect(),
            report: report.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
            journal: journal.lines().filter_map(journal_reason).collect(),
            ..Heard::default()
        }
    }

    /// The same, and what AWS and Kubernetes have of it.
    pub async fn all(&self, near: Heard) -> Heard {
        let wanted = self.case.heard();
        let wants = |channel| wanted.contains(&channel);
        let is_healthy = self.case.reason.is_none();
        let parameter = if wants(Channel::Ssm) || is_healthy {
            self.stage.parameter(self.case, &self.instance).await
        } else {
            None
        };
        let tag = if wants(Channel::Tag) {
            let instance = self.stage.instance(&self.instance).await;
            instance.and_then(|instance| instance.tags.get(TAG_JOIN).cloned())
        } else {
            None
        };
        let name = near.report.as_ref().map(|report| report.instance.name.clone());
        let condition = match name.filter(|_| wants(Channel::Condition)) {
            Some(name) => self.condition(&name).await,
            None => None,
        };
        Heard { parameter, tag, condition, ..near }
    }

    /// The events on the Node.
    pub(super) async fn events(&self) -> Vec<serde_json::Value> {
        let Some(report) = self.near().report else { return Vec::new() };
        self.stage.events(&report.instance.name).await
    }

    /// What the watch serves at `/metrics`.
    pub(super) async fn metrics(&self) -> anyhow::Result<String> {
        metrics::scrape(&self.root()).await
    }

    /// The Node's condition about its GPUs, as the API server has it.
    pub(super) async fn gpu_condition(&self) -> Option<serde_json::Value> {
        let name = self.near().report?.instance.name;
        self.condition_of(&name).await
    }

    /// How many GPUs the node's metrics have a temperature of, be it an old one.
    pub(super) async fn gpus_served(&self) -> anyhow::Result<usize> {
        Ok(gpus_in(&metrics::scrape(&self.root()).await?))
    }

    /// Has PID 1's double restart one of the agent's own units, which must end without being killed.
    pub(super) async fn restart(&self, unit: &str) -> anyhow::Result<()> {
        let killed = || {
            let log = std::fs::read(Store::of(&self.root()).log(unit)).unwrap_or_default();
            String::from_utf8_lossy(&log).matches("code=killed").count()
        };
        let before = killed();
        systemctl(&self.root(), &["restart", unit]).await?;
        anyhow::ensure!(killed() == before, "`{unit}` had to be killed");
        Ok(())
    }

    async fn condition_of(&self, name: &str) -> Option<serde_json::Value> {
        let node = self.stage.node(name).await?;
        let conditions = node["status"]["conditions"].as_array()?;
        let ours = [CONDITION_ACCELERATED_HARDWARE, CONDITION_GPU_NODE_HEALTHY];
        conditions.iter().find(|c| ours.iter().any(|name| c["type"] == *name)).cloned()
    }

    async fn condition(&self, name: &str) -> Option<String> {
        let ours = self.condition_of(name).await?;
        Some(format!("{} {}", ours["reason"], ours["message"]))
    }
}

/// The GPUs of which these metrics have a temperature.
#[must_use]
pub fn gpus_in(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with("DCGM_FI_DEV_GPU_TEMP{")).count()
}

/// Runs a node's systemctl, as somebody logged in would.
///
/// # Errors
/// When it fails, or does not end.
pub async fn systemctl(root: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let words = arguments.join(" ");
    let ended = tokio::process::Command::new(root.join("usr/bin/systemctl"))
        .args(arguments)
        .env_clear()
        .envs(Store::of(root).environment())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .status();
    let status = tokio::time::timeout(SYSTEMCTL, ended).await;
    let status = status.with_context(|| format!("systemctl {words} does not end"))??;
    anyhow::ensure!(status.success(), "systemctl {words} ended with {status}");
    Ok(())
}

/// The cause that a line of the join's log names, in the log's text form.
fn journal_reason(line: &str) -> Option<String> {
    let rest = line.split_once("rollcall_reason=\"")?.1;
    Some(rest.split_once('"')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_names_the_cause_in_a_field() {
        let line = "2026-11-20T20:00:00Z ERROR agent::pipeline::recorder: join failed rollcall_reason=\"GpuLost\" rollcall_phase=\"drivers\"";
        assert_eq!(journal_reason(line).as_deref(), Some("GpuLost"));
        assert_eq!(journal_reason("reason=\"GpuLost\""), None);
    }
}
