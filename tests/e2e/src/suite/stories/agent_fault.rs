//! An agent that cannot run cannot say so: PID 1's fallback does, and lets the node in unless it was
//! told to keep it out.

use std::time::Duration;

use anyhow::ensure;
use contract::agent_config::OnAgentFault;
use contract::names::{ADMITTED_PATH, UNIT_JOIN};

use crate::suite::Suite;
use crate::suite::node::Node;
use crate::suite::poll::until;

/// Five starts and a second between them, on a busy machine.
const FAULT_WITHIN: Duration = Duration::from_secs(120);
/// Five starts of 20 s each.
const HANG_WITHIN: Duration = Duration::from_secs(200);
const JOINED: Duration = Duration::from_secs(120);

const FALLBACK: &str = "rollcall-fallback.service";
const STOCK_RUN: &str = "nodeadm-run.service";

/// A user script that replaces what the installer before it has installed.
fn replaced_by(content: &str) -> String {
    format!(
        "systemctl stop {UNIT_JOIN}\nprintf '{content}' >/usr/bin/rollcall-agent.new\n\
         chmod 755 /usr/bin/rollcall-agent.new\nmv /usr/bin/rollcall-agent.new /usr/bin/rollcall-agent\n\
         systemctl start --no-block {UNIT_JOIN}"
    )
}

pub(super) async fn garbage_and_open(suite: &Suite) -> anyhow::Result<()> {
    joins_the_stock_way(suite, "agent-garbage", "\\177ELFgarbage", FAULT_WITHIN).await
}

pub(super) async fn hangs_and_open(suite: &Suite) -> anyhow::Result<()> {
    let hang = "#!/bin/sh\\nexec sleep 1000\\n";
    joins_the_stock_way(suite, "agent-hangs", hang, HANG_WITHIN).await
}

async fn joins_the_stock_way(
    suite: &Suite,
    name: &str,
    agent: &str,
    within: Duration,
) -> anyhow::Result<()> {
    let recipe = suite.recipe("system").await?.with_script(&replaced_by(agent));
    let node = suite.launch(&recipe, name).await?;
    suite.named(&node, "AgentFault", within).await?;
    until(JOINED, "the node joins the stock way", async || {
        Ok(suite.is_ready(&node).await?.then_some(()))
    })
    .await?;
    let admitted = node.asked(&["cat", ADMITTED_PATH]).await?;
    ensure!(admitted.starts_with("agent-fault "), "admitted by another: {admitted}");
    let log = node.asked(&["journalctl", "-b", "-q", "-u", STOCK_RUN, "-o", "cat"]).await?;
    ensure!(log.contains("Running daemons"), "kubelet runs, and nodeadm-run has not: {log}");
    has_been_given_up(&node).await?;
    suite.terminate(&[&node]).await
}

pub(super) async fn aborts_and_closed(suite: &Suite) -> anyhow::Result<()> {
    let abort = replaced_by("#!/bin/sh\\nkill -ABRT $$\\n");
    let mut recipe = suite.recipe("system").await?.with_script(&abort);
    recipe.agent.on_agent_fault = OnAgentFault::Closed;
    let node = suite.launch(&recipe, "agent-aborts").await?;
    suite.named(&node, "AgentFault", FAULT_WITHIN).await?;
    until(FAULT_WITHIN, "the fallback and cloud-init have ended", async || {
        let fallback = node.property(FALLBACK, "ActiveState").await?;
        let scripts = node.property("cloud-final.service", "ActiveState").await?;
        Ok((fallback == "inactive" && scripts == "active").then_some(()))
    })
    .await?;
    let jobs = node.asked(&["systemctl", "list-jobs", "--no-legend"]).await?;
    ensure!(!jobs.contains("nodeadm-run") && !jobs.contains("kubelet"), "queued: {jobs}");
    ensure!(node.kubelet().await? == "0", "kubelet was started although the gate fails closed");
    ensure!(!node.path(ADMITTED_PATH).exists(), "the node was admitted");
    ensure!(!suite.is_registered(&node).await?, "{} has a Node object", node.name);
    has_been_given_up(&node).await?;
    suite.terminate(&[&node]).await
}

async fn has_been_given_up(node: &Node) -> anyhow::Result<()> {
    let state = node.property(UNIT_JOIN, "ActiveState").await?;
    ensure!(state == "failed", "{UNIT_JOIN} is {state}");
    Ok(())
}
