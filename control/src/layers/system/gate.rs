//! Proves the system layer: nodes Ready, aws-node and kube-proxy on them, CoreDNS available.

use std::time::Duration;

use crate::aws::poll::{Waited, until};
use crate::kube::Cluster;
use crate::layers::addons::observe::{connect, kubernetes};
use crate::layers::pools::gate as pools;
use crate::layers::system::SystemFacts;
use crate::layers::system::desired::COREDNS;
use crate::layers::system::observe;
use crate::stack::{Gate, Inputs, Layer, StackError, World};

/// Image pulls and a rollout of two pods.
const DEADLINE: Duration = Duration::from_secs(300);
const NAMESPACE: &str = "kube-system";
/// The pods that every node needs, by label.
const ON_EVERY_NODE: [(&str, &str); 2] =
    [("aws-node", "k8s-app=aws-node"), ("kube-proxy", "k8s-app=kube-proxy")];

/// Waits for the nodes, then for what must run on them.
pub async fn wait(
    world: &World,
    inputs: &Inputs,
    facts: &mut SystemFacts,
) -> Result<Gate, StackError> {
    let gate = pools::wait(world, inputs, Layer::System).await?;
    *facts = observe::observe(world, Some(inputs)).await?;
    if !gate.is_open() {
        return Ok(gate);
    }
    let Some(cluster) = connect(world, inputs).await? else {
        return Err(StackError::Missing { layer: Layer::System, missing: "an ACTIVE cluster" });
    };
    let mut missing = Vec::new();
    let look = async || {
        missing = unproven(&cluster).await?;
        Ok(missing.is_empty().then_some(()))
    };
    let waited = until(world.pace, DEADLINE, &world.interrupt, look).await?;
    let nodes = gate.nodes().clone();
    Ok(match (waited, gate) {
        (Waited::Came(()), Gate::Open { detail, nodes }) => {
            Gate::Open { detail: format!("{detail}, CoreDNS available"), nodes }
        }
        (Waited::Came(()), gate) => gate,
        (Waited::TooLong, _) => Gate::TimedOut { detail: missing.join("; "), nodes },
    })
}

/// What is not there yet.
async fn unproven(cluster: &Cluster) -> Result<Vec<String>, StackError> {
    let failed = |error| kubernetes("look at the system pods".into(), error);
    let mut missing = Vec::new();
    let nodes = cluster.nodes(None).await.map_err(failed)?;
    for (what, selector) in ON_EVERY_NODE {
        let pods = cluster.pods(NAMESPACE, selector, None).await.map_err(failed)?;
        for node in nodes.iter().filter(|node| node.is_ready()) {
            let runs = |pod: &&crate::kube::PodFacts| {
                pod.ready && pod.node.as_deref() == Some(node.name.as_str())
            };
            if !pods.iter().any(|pod| runs(&pod)) {
                missing.push(format!("{what} is not ready on {}", node.name));
            }
        }
    }
    let dns = cluster.deployment(NAMESPACE, COREDNS).await.map_err(failed)?;
    if dns.is_none_or(|dns| dns.available == 0) {
        missing.push("CoreDNS is not available".to_owned());
    }
    Ok(missing)
}
