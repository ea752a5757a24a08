//! A stock image with AWS's units as shipped; the agent came with user data, by URL and checksum.
//! After a reboot it is there from the beginning and proves everything anew.

use std::time::Duration;

use anyhow::{Context, ensure};
use contract::names::{ADMITTED_PATH, UNIT_JOIN};

use crate::suite::Suite;
use crate::suite::node::Node;
use crate::suite::poll::until;

const BOOTS: Duration = Duration::from_secs(90);

pub(super) async fn tell(suite: &Suite) -> anyhow::Result<()> {
    let node = suite.node("gpu", 1).await?;
    let first = installed_by_user_data(suite, &node).await?;

    // The connection to its PID 1 goes with it: what it answers says nothing.
    node.run(&["systemctl", "reboot"]).await.ok();
    let node = until(BOOTS, "another boot", async || {
        let node = suite.node("gpu", 1).await?;
        let boot = node.asked(&["cat", "/proc/sys/kernel/random/boot_id"]).await?;
        Ok((boot != first).then_some(node))
    })
    .await?;
    let boot = node.asked(&["cat", "/proc/sys/kernel/random/boot_id"]).await?;
    until(BOOTS, "the agent is at work in this boot", async || {
        Ok((node.report()?.boot == boot).then_some(()))
    })
    .await?;
    suite.joined(&node).await?;
    let report = node.report()?;
    ensure!(report.attempt == 1 && report.reasons.is_empty(), "{report:#?}");
    until(BOOTS, "the Node object is of this boot", async || {
        let found = suite.cluster().await?.node(&suite.world, &node.name).await?;
        let found = found.context("no Node object")?;
        ensure!(found.boot == boot, "it is of the boot {}", found.boot);
        Ok(found.ready.then_some(()))
    })
    .await
}

/// The units as the installer leaves them; gives the boot.
async fn installed_by_user_data(suite: &Suite, node: &Node) -> anyhow::Result<String> {
    for (unit, state) in [
        ("nodeadm-config.service", "enabled"),
        ("nodeadm-run.service", "disabled"),
        (UNIT_JOIN, "enabled"),
    ] {
        let is = node.run(&["systemctl", "is-enabled", unit]).await?.stdout;
        ensure!(is.trim() == state, "{unit} is {is}");
    }
    ensure!(suite.recipe("gpu").await?.agent.install.is_some(), "the agent was not in user data");
    ensure!(node.path(ADMITTED_PATH).exists(), "the node is in and was not admitted");
    node.asked(&["cat", "/proc/sys/kernel/random/boot_id"]).await
}
