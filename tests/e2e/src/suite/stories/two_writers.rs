//! Two agents that would write one condition: where eks-node-monitoring-agent runs, its condition is left
//! alone and ours goes under a type of our own; where it has gone, we take its place. And events reach
//! the Node as they happen.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use contract::names::{
    CONDITION_ACCELERATED_HARDWARE as THEIRS, CONDITION_GPU_NODE_HEALTHY as OURS, UNIT_WATCH,
};
use serde_json::{Value, json};

use crate::suite::Suite;
use crate::suite::node::Node;
use crate::suite::poll::until;

const POOL: &str = "monitored";
/// Far more than the agent takes, on a machine that has other things to do.
const LONG: Duration = Duration::from_secs(120);
const DAEMONSETS: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets";
const NAME: &str = "eks-node-monitoring-agent";
/// What it says on a healthy node, by whom its fields are.
const MANAGER: &str = "eks-node-monitoring-agent";

pub(super) async fn tell(suite: &Suite) -> anyhow::Result<()> {
    let (cluster, world) = (suite.cluster().await?, &suite.world);
    cluster.call(world, "POST", DAEMONSETS, Some(&daemonset())).await?;
    until(LONG, "the other agent's DaemonSet wants nodes", async || {
        let set = cluster.call(world, "GET", &format!("{DAEMONSETS}/{NAME}"), None).await?;
        Ok(set["status"]["desiredNumberScheduled"].as_u64().filter(|count| *count > 0))
    })
    .await?;

    let node = suite.launch(&suite.recipe("gpu").await?, POOL).await?;
    suite.joined(&node).await?;
    let theirs = write_theirs(suite, &node).await?;
    stands(suite, &node, OURS, "True", "").await?;

    suite.fault(&format!("{POOL}/0"), "gpu-lost=0").await?;
    stands(suite, &node, OURS, "False", "GpuLost").await?;
    let now = condition(suite, &node, THEIRS).await?;
    ensure!(now == Some(theirs), "the other agent's condition has become {now:?}");
    suite.fault(&format!("{POOL}/0"), "clear").await?;
    stands(suite, &node, OURS, "True", "").await?;
    suite.fault(&format!("{POOL}/0"), "xid-nvml-only=31:0").await?;
    event(suite, &node, "NvidiaXID31Warning").await?;

    cluster.call(world, "DELETE", &format!("{DAEMONSETS}/{NAME}"), None).await?;
    // It looks for the other one now and then, and when it starts.
    node.asked(&["systemctl", "restart", UNIT_WATCH]).await?;
    suite.fault(&format!("{POOL}/0"), "gpu-lost=0").await?;
    stands(suite, &node, THEIRS, "False", "GpuLost").await?;
    let left = condition(suite, &node, OURS).await?;
    ensure!(left.is_none(), "our own type is left to go stale: {left:?}");
    suite.fault(&format!("{POOL}/0"), "clear").await?;
    stands(suite, &node, THEIRS, "True", "").await?;
    suite.terminate(&[&node]).await
}

/// A DaemonSet of that name for the node alone; no image of it is ever needed.
fn daemonset() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": NAME},
        "spec": {
            "selector": {"matchLabels": {"app": NAME}},
            "template": {"metadata": {"labels": {"app": NAME}}, "spec": {
                "nodeSelector": {"node-type": "gpu"},
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "agent", "image": "registry.k8s.io/pause:3.10"}],
            }},
        },
    })
}

/// Writes the condition as the other agent does, and gives it as the Node then has it.
async fn write_theirs(suite: &Suite, node: &Node) -> anyhow::Result<Value> {
    let patch = json!({"status": {"conditions": [{
        "type": THEIRS, "status": "True", "reason": "NvidiaGPUIsReady", "message": "theirs",
        "lastTransitionTime": "2026-11-01T00:00:00Z", "lastHeartbeatTime": "2026-11-01T00:00:00Z",
    }]}});
    let path = format!("/api/v1/nodes/{}/status?fieldManager={MANAGER}", node.name);
    suite.cluster().await?.call(&suite.world, "PATCH", &path, Some(&patch)).await?;
    condition(suite, node, THEIRS).await?.context("the condition was not written")
}

async fn condition(suite: &Suite, node: &Node, kind: &str) -> anyhow::Result<Option<Value>> {
    let path = format!("/api/v1/nodes/{}", node.name);
    let object = suite.cluster().await?.call(&suite.world, "GET", &path, None).await?;
    let conditions = object["status"]["conditions"].as_array();
    Ok(conditions.into_iter().flatten().find(|one| one["type"] == kind).cloned())
}

async fn stands(
    suite: &Suite,
    node: &Node,
    kind: &str,
    status: &str,
    says: &str,
) -> anyhow::Result<()> {
    until(LONG, &format!("{kind} is {status} and says `{says}`"), async || {
        let found = condition(suite, node, kind).await?;
        let is_so = found.as_ref().is_some_and(|one| {
            one["status"] == status && one["message"].as_str().is_some_and(|m| m.contains(says))
        });
        ensure!(is_so, "it is {found:?}");
        Ok(Some(()))
    })
    .await
}

/// Waits for an event of ours on the Node.
async fn event(suite: &Suite, node: &Node, reason: &str) -> anyhow::Result<()> {
    until(LONG, &format!("the event {reason} on {}", node.name), async || {
        let path = "/api/v1/namespaces/default/events";
        let list = suite.cluster().await?.call(&suite.world, "GET", path, None).await?;
        let is_ours = |one: &&Value| {
            one["reason"] == reason
                && one["involvedObject"]["name"] == node.name.as_str()
                && one["source"]["component"] == "rollcall-agent"
        };
        Ok(list["items"].as_array().into_iter().flatten().find(is_ours).map(|_| ()))
    })
    .await
}
