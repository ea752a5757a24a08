//! A double of the parts of EKS that act on nodes from AWS's side: the cloud controller (what an
//! instance is reaches its Node; the Node of a terminated instance goes) and the approver of
//! kubelets' serving certificates.

use serde_json::{Value, json};

use super::api::{Api, ApiError};
use crate::kubernetes::NodeView;
use crate::kubernetes::standin::world::Instance;

const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";
const SERVING: &str = "kubernetes.io/kubelet-serving";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// What is to be done with one Node.
#[derive(Debug, PartialEq)]
enum Change {
    /// Its instance is no more.
    Delete,
    /// A merge patch that says what the instance is and lets pods come.
    Initialise(Value),
}

/// One pass; answers the nodes as they were before it.
pub(super) async fn reconcile(
    api: &Api,
    instances: &[Instance],
) -> Result<Vec<NodeView>, ApiError> {
    let nodes = api.list("/api/v1/nodes").await?;
    for node in &nodes {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!("/api/v1/nodes/{name}");
        match change(node, instances) {
            None => {}
            Some(Change::Delete) => {
                tracing::info!(node = name, "instance is gone: its Node is deleted");
                api.delete(&path).await?;
            }
            // Somebody else may have changed the node in between: the next pass looks again.
            Some(Change::Initialise(patch)) => api.merge(&path, &patch).await?,
        }
    }
    approve(api).await?;
    Ok(nodes.iter().map(view).collect())
}

/// Decides about one Node. Pure.
fn change(node: &Value, instances: &[Instance]) -> Option<Change> {
    let instance = instance_of(node, instances);
    let Some(instance) = instance else {
        return (!instance_id(node).is_empty()).then_some(Change::Delete);
    };
    if matches!(instance.state.as_str(), "terminated" | "shutting-down") {
        return Some(Change::Delete);
    }
    let taints = node["spec"]["taints"].as_array()?;
    let rest: Vec<&Value> = taints.iter().filter(|taint| taint["key"] != UNINITIALIZED).collect();
    if rest.len() == taints.len() {
        return None;
    }
    let region = instance.zone.trim_end_matches(|c: char| c.is_ascii_lowercase());
    Some(Change::Initialise(json!({
        "metadata": {
            "resourceVersion": node["metadata"]["resourceVersion"],
            "labels": {
                "node.kubernetes.io/instance-type": instance.instance_type,
                "topology.kubernetes.io/zone": instance.zone,
                "topology.kubernetes.io/region": region,
                "topology.k8s.aws/zone-id": instance.zone_id,
            },
        },
        "spec": {
            "providerID": format!("aws:///{}/{}", instance.zone, instance.instance_id),
            "taints": rest,
        },
    })))
}

/// By provider id, else by name: kubelet may have registered without one.
fn instance_of<'a>(node: &Value, instances: &'a [Instance]) -> Option<&'a Instance> {
    let id = instance_id(node);
    let name = node["metadata"]["name"].as_str().unwrap_or_default();
    instances.iter().find(|instance| {
        if id.is_empty() {
            instance.private_dns_name == name || instance.instance_id == name
        } else {
            instance.instance_id == id
        }
    })
}

fn instance_id(node: &Value) -> &str {
    let provider = node["spec"]["providerID"].as_str().unwrap_or_default();
    provider.rsplit('/').next().unwrap_or_default()
}

fn view(node: &Value) -> NodeView {
    NodeView {
        name: node["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        instance_id: instance_id(node).to_owned(),
        ready: has_condition(node, "Ready"),
    }
}

fn has_condition(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| c["type"] == kind && c["status"] == "True")
}

async fn approve(api: &Api) -> Result<(), ApiError> {
    for request in api.list(REQUESTS).await?.iter().filter(|request| is_pending(request)) {
        let name = request["metadata"]["name"].as_str().unwrap_or_default();
        let mut approved = request.clone();
        approved["status"]["conditions"] = json!([{
            "type": "Approved", "status": "True", "reason": "EksApproverDouble",
            "message": "a serving certificate for the node itself",
        }]);
        // The items of a list do not say what they are.
        approved["apiVersion"] = "certificates.k8s.io/v1".into();
        approved["kind"] = "CertificateSigningRequest".into();
        api.put(&format!("{REQUESTS}/{name}/approval"), &approved).await?;
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

    fn instance(state: &str) -> Instance {
        Instance {
            instance_id: "i-1".into(),
            instance_type: "p5.48xlarge".into(),
            state: state.into(),
            zone: "us-east-1a".into(),
            private_dns_name: "ip-10-0-0-1.ec2.internal".into(),
            ..Instance::default()
        }
    }

    fn node(provider: &str, taints: &[&str]) -> Value {
        let taints: Vec<Value> = taints.iter().map(|key| json!({"key": key})).collect();
        json!({
            "metadata": {"name": "ip-10-0-0-1.ec2.internal", "resourceVersion": "7"},
            "spec": {"providerID": provider, "taints": taints},
        })
    }

    #[test]
    fn a_new_node_learns_what_it_is_and_keeps_its_other_taints() {
        let instances = [instance("running")];
        for provider in ["", "aws:///us-east-1a/i-1"] {
            let Some(Change::Initialise(patch)) =
                change(&node(provider, &[UNINITIALIZED, "nvidia.com/gpu"]), &instances)
            else {
                panic!("nothing done for `{provider}`");
            };
            assert_eq!(patch["spec"]["taints"], json!([{"key": "nvidia.com/gpu"}]));
            assert_eq!(patch["spec"]["providerID"], "aws:///us-east-1a/i-1");
            assert_eq!(patch["metadata"]["labels"]["topology.kubernetes.io/region"], "us-east-1");
        }
        assert_eq!(change(&node("", &["nvidia.com/gpu"]), &instances), None);
    }

    #[test]
    fn a_node_goes_with_its_instance_and_a_stranger_stays() {
        let provider = "aws:///us-east-1a/i-1";
        assert_eq!(change(&node(provider, &[]), &[instance("terminated")]), Some(Change::Delete));
        assert_eq!(change(&node(provider, &[]), &[]), Some(Change::Delete));
        assert_eq!(change(&node("", &[]), &[]), None);
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
