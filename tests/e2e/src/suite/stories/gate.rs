//! A node whose driver does not match its library: the cluster never sees it, until it is repaired.

use std::time::Duration;

use anyhow::ensure;

use crate::suite::Suite;

const POOL: &str = "gate";

pub(super) async fn tell(suite: &Suite) -> anyhow::Result<()> {
    suite.fault(&format!("{POOL}/0"), "driver-library-mismatch").await?;
    let node = suite.launch(&suite.recipe("gpu").await?, POOL).await?;
    suite.named(&node, "DriverLibraryMismatch", Duration::from_secs(120)).await?;
    ensure!(node.kubelet().await? == "0", "kubelet was started behind a closed gate");
    ensure!(!node.path(contract::names::ADMITTED_PATH).exists(), "the node was admitted");
    ensure!(!suite.is_registered(&node).await?, "{} has a Node object", node.name);

    suite.fault(&format!("{POOL}/0"), "clear").await?;
    suite.joined(&node).await?;
    suite.terminate(&[&node]).await
}
