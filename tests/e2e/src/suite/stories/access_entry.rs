//! A node whose role the cluster does not know: said before kubelet is ever started.

use std::time::Duration;

use anyhow::ensure;

use crate::suite::Suite;

const POOL: &str = "stranger";

pub(super) async fn tell(suite: &Suite) -> anyhow::Result<()> {
    suite.fault(&format!("{POOL}/0"), "access-entry-removed").await?;
    let node = suite.launch(&suite.recipe("gpu").await?, POOL).await?;
    suite.named(&node, "ApiServerUnauthorized", Duration::from_secs(150)).await?;
    ensure!(node.kubelet().await? == "0", "kubelet was started by a node that nobody knows");
    ensure!(!suite.is_registered(&node).await?, "{} has a Node object", node.name);

    suite.fault(&format!("{POOL}/0"), "clear").await?;
    suite.joined(&node).await?;
    suite.terminate(&[&node]).await
}
