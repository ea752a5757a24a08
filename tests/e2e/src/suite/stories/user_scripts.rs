//! User scripts in cloud-init's last stage, which kubelet has to wait for: one that hangs is named,
//! one that takes its time is not.

use std::time::Duration;

use anyhow::ensure;
use contract::names::UNIT_KUBELET;

use crate::suite::Suite;
use crate::suite::poll::until;

/// How long scripts may run in the first story, and how soon afterwards it has to be said.
const LIMIT_SECONDS: u64 = 15;
const SAID_WITHIN: Duration = Duration::from_secs(90);

pub(super) async fn one_that_hangs(suite: &Suite) -> anyhow::Result<()> {
    let script = "until [ -e /run/go-on ]; do sleep 0.2; done";
    let mut recipe = suite.recipe("system").await?.with_script(script);
    recipe.agent.deadlines.cloud_init_seconds = Some(LIMIT_SECONDS);
    let node = suite.launch(&recipe, "script-hangs").await?;
    suite.named(&node, "CloudInitStuck", SAID_WITHIN).await?;
    ensure!(node.kubelet().await? == "0", "kubelet was started before cloud-init was done");

    node.asked(&["touch", "/run/go-on"]).await?;
    suite.joined(&node).await?;
    suite.terminate(&[&node]).await
}

pub(super) async fn one_that_takes_a_minute(suite: &Suite) -> anyhow::Result<()> {
    let recipe = suite.recipe("system").await?.with_script("sleep 60; touch /run/slept");
    let node = suite.launch(&recipe, "script-slow").await?;
    until(Duration::from_secs(150), "the script ends", async || {
        let kubelet = node.property(UNIT_KUBELET, "ActiveState").await?;
        let has_slept = node.path("/run/slept").exists();
        ensure!(has_slept || kubelet == "inactive", "kubelet is {kubelet} before the script's end");
        Ok(has_slept.then_some(()))
    })
    .await?;
    suite.joined(&node).await?;
    let said = node.said();
    let named: Vec<_> = said.iter().filter(|line| !line.reasons.is_empty()).collect();
    ensure!(named.is_empty(), "a slow script is no fault: {named:#?}");
    suite.terminate(&[&node]).await
}
