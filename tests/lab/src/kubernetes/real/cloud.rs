//! Doubles of the parts of EKS that act on nodes from AWS's side: the cloud controller, which carries
//! out what [`cloud`] decides, and the approver of kubelets' serving certificates.

use serde_json::{Value, json};

use super::api::{Api, ApiError};
use crate::kubernetes::NodeView;
use crate::kubernetes::cloud::{self, Errand};
use crate::kubernetes::view::name;
use crate::kubernetes::world::Instance;

const SERVING: &str = "kubernetes.io/kubelet-serving";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// One pass; answers the nodes as they were before it.
pub(super) async fn reconcile(
    api: &Api,
    instances: &[Instance],
) -> Result<Vec<NodeView>, ApiError> {
    let nodes = api.list("/api/v1/nodes").await?;
    for node in &nodes {
        let path = format!("/api/v1/nodes/{}", name(node));
        match cloud::errand(node, instances) {
            None => {}
            Some(Errand::Delete) => {
                tracing::info!(node = name(node), "instance is gone: its Node is deleted");
                api.delete(&path).await?;
            }
            Some(Errand::Initialise(instance)) => {
                api.merge(&path, &initialisation(node, instance)).await?;
            }
        }
    }
    approve(api).await?;
    Ok(nodes.iter().map(NodeView::of).collect())
}

/// The merge patch for a Node. It names the version that it was made of: somebody else may have
/// changed the node in between, and then the next pass looks again. Pure.
fn initialisation(node: &Value, instance: &Instance) -> Value {
    let mut after = node.clone();
    cloud::initialise(&mut after, instance);
    json!({
        "metadata": {
            "resourceVersion": node["metadata"]["resourceVersion"],
            "labels": after["metadata"]["labels"],
        },
        "spec": {"providerID": after["spec"]["providerID"], "taints": after["spec"]["taints"]},
    })
}

async fn approve(api: &Api) -> Result<(), ApiError> {
    for request in api.list(REQUESTS).await?.iter().filter(|request| is_pending(request)) {
        let mut approved = request.clone();
        approved["status"]["conditions"] = json!([{
            "type": "Approved", "status": "True", "reason": "EksApproverDouble",
            "message": "a serving certificate for the node itself",
        }]);
        // The items of a list do not say what they are.
        approved["apiVersion"] = "certificates.k8s.io/v1".into();
        approved["kind"] = "CertificateSigningRequest".into();
        api.put(&format!("{REQUESTS}/{}/approval", name(request)), &approved).await?;
    }
    Ok(())
}

/// A kubelet's own request that nobody has decided on.
fn is_pending(request: &Value) -> bool {
    let user = request["spec"]["username"].as_str().unwrap_or_default();
    let decided = request["status"]["conditions"].as_array().is_some_and(|c| !c.is_empty());
    request["spec"]["signerName"] == SERVING && user.starts_with("system:node:") && !decided
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_initialised_at_the_version_that_was_seen() {
        let node = json!({
            "metadata": {"name": "n", "resourceVersion": "7"},
            "spec": {"taints": [{"key": "t"}]},
        });
        let instance = Instance {
            instance_id: "i-1".into(),
            zone: "us-east-1a".into(),
            ..Instance::default()
        };
        let patch = initialisation(&node, &instance);
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["metadata"]["labels"]["topology.kubernetes.io/zone"], "us-east-1a");
        assert_eq!(patch["spec"]["taints"], json!([{"key": "t"}]));
    }

    #[test]
    fn only_a_nodes_own_undecided_request_is_approved() {
        let request = |user: &str, signer: &str, conditions: Value| {
            json!({
                "spec": {"username": user, "signerName": signer},
                "status": {"conditions": conditions},
            })
        };
        assert!(is_pending(&request("system:node:a", SERVING, Value::Null)));
        assert!(!is_pending(&request("system:node:a", SERVING, json!([{"type": "Denied"}]))));
        assert!(!is_pending(&request("eve", SERVING, Value::Null)));
        assert!(!is_pending(&request("system:node:a", "example.com/x", Value::Null)));
    }
}
