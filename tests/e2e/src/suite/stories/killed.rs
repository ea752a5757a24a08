//! The agent is killed once in a boot, on each node in another phase: systemd starts it again, the
//! node joins, and kubelet does not notice.

use std::time::Duration;

use anyhow::{Context, ensure};
use contract::Phase;
use contract::names::{ADMITTED_PATH, UNIT_JOIN, UNIT_KUBELET};

use crate::suite::Suite;
use crate::suite::killer::kill_in;
use crate::suite::poll::{side_by_side, until};

/// Nodes that boot side by side.
const AT_ONCE: usize = 4;
const RESTARTED: Duration = Duration::from_secs(30);

pub(super) async fn tell(suite: &Suite) -> anyhow::Result<()> {
    for phases in Phase::ALL.chunks(AT_ONCE) {
        let lives = phases.iter().map(|phase| async move {
            one(suite, *phase).await.with_context(|| format!("killed in {phase}"))
        });
        side_by_side(lives).await.into_iter().collect::<anyhow::Result<()>>()?;
    }
    Ok(())
}

async fn one(suite: &Suite, phase: Phase) -> anyhow::Result<()> {
    let pool = format!("killed-in-{phase}");
    // Only nodes with GPUs have a drivers phase.
    let like = if phase == Phase::Drivers { "gpu" } else { "system" };
    let node = suite.launch(&suite.recipe(like).await?, &pool).await?;
    kill_in(phase, &node).await?;
    let kubelet = node.kubelet().await?;
    let had_been_let_in = phase >= Phase::Register;
    ensure!(kubelet == "0" || had_been_let_in, "kubelet runs before register");
    let admitted = node.path(ADMITTED_PATH);
    ensure!(admitted.exists() == had_been_let_in, "admitted: {}", admitted.exists());

    until(RESTARTED, "PID 1 starts the agent again", async || {
        let restarts = node.property(UNIT_JOIN, "NRestarts").await?;
        ensure!(!had_been_let_in || admitted.exists(), "admitted went with the agent");
        Ok((restarts != "0").then_some(()))
    })
    .await?;
    suite.joined(&node).await?;
    let (now, restarts) = (node.kubelet().await?, node.property(UNIT_KUBELET, "NRestarts").await?);
    ensure!(kubelet == "0" || kubelet == now, "kubelet's pid was {kubelet} and is {now}");
    ensure!(restarts == "0", "kubelet was restarted {restarts} times");
    ensure!(!node.has_named("AgentFault"), "one death is no fault");
    suite.terminate(&[&node]).await
}
