//! A node whose CNI is held back: it registers and its network is named. While the add-on is
//! degraded because of it, another node joins.

use std::time::Duration;

use anyhow::ensure;
use contract::Phase;

use crate::suite::Suite;

const HELD: &str = "cni-held";
const NEIGHBOUR: &str = "cni-neighbour";

/// Long enough for a CNI that comes by itself, short enough for a suite: the agent's own is 300 s.
const READY_SECONDS: u64 = 20;

pub(super) async fn tell(suite: &Suite) -> anyhow::Result<()> {
    suite.fault(&format!("{HELD}/0"), "cni-held").await?;
    let mut recipe = suite.recipe("system").await?;
    if !suite.full {
        recipe.agent.deadlines.phase_seconds.insert(Phase::Ready, READY_SECONDS);
    }
    let held = suite.launch(&recipe, HELD).await?;
    suite.named(&held, "CniNotReady", Duration::from_secs(400)).await?;
    ensure!(suite.is_registered(&held).await?, "a node without a CNI has not registered");
    ensure!(!suite.is_ready(&held).await?, "a node without a CNI is Ready");

    // EKS calls the add-on so while one of its pods is not ready.
    suite.emulator.report_workload("vpc-cni", 0).await?;
    let neighbour = suite.launch(&suite.recipe("system").await?, NEIGHBOUR).await?;
    suite.joined(&neighbour).await?;
    let reasons = neighbour.report()?.reasons;
    let hard: Vec<_> = reasons.iter().filter(|finding| finding.reason.is_hard()).collect();
    ensure!(hard.is_empty(), "another node's trouble has become its own: {hard:#?}");

    suite.fault(&format!("{HELD}/0"), "clear").await?;
    suite.emulator.report_workload("vpc-cni", 1).await?;
    suite.joined(&held).await?;
    suite.terminate(&[&held, &neighbour]).await
}
