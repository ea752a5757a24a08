//! What the cloud controller decides about a Node: an instance's facts reach its Node, and the Node of
//! an instance that is no more goes. Pure; each gear's controller carries it out.

use serde_json::Value;

use super::view::{name, provider_instance};
use super::world::Instance;

/// The taint of a Node that the cloud controller has not seen yet.
const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// What is to be done with one Node.
#[derive(Debug, PartialEq)]
pub(super) enum Errand<'a> {
    /// Its instance is no more.
    Delete,
    /// It does not know yet what it runs on.
    Initialise(&'a Instance),
}

/// Decides about one Node. One that belongs to no instance is left alone.
pub(super) fn errand<'a>(node: &Value, instances: &'a [Instance]) -> Option<Errand<'a>> {
    let instance = match provider_instance(node) {
        Some(id) => instances.iter().find(|instance| instance.instance_id == id),
        // kubelet may have registered without a provider id.
        None => Some(instances.iter().find(|instance| is_named_for(node, instance))?),
    };
    match instance {
        None => Some(Errand::Delete),
        Some(instance) if instance.state == "terminated" => Some(Errand::Delete),
        Some(instance) => is_uninitialised(node).then_some(Errand::Initialise(instance)),
    }
}

fn is_named_for(node: &Value, instance: &Instance) -> bool {
    let name = name(node);
    instance.state != "terminated"
        && (instance.private_dns_name == name || instance.instance_id == name)
}

fn is_uninitialised(node: &Value) -> bool {
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    taints.into_iter().any(|taint| taint["key"] == UNINITIALIZED)
}

/// Tells a Node what it runs on, and lets pods come.
pub(super) fn initialise(node: &mut Value, instance: &Instance) {
    let region = instance.zone.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
    let labels = [
        ("node.kubernetes.io/instance-type", instance.instance_type.as_str()),
        ("topology.kubernetes.io/zone", instance.zone.as_str()),
        ("topology.kubernetes.io/region", region),
        ("topology.k8s.aws/zone-id", instance.zone_id.as_str()),
    ];
    for (label, value) in labels.into_iter().filter(|(_, value)| !value.is_empty()) {
        node["metadata"]["labels"][label] = value.into();
    }
    node["spec"]["providerID"] =
        format!("aws:///{}/{}", instance.zone, instance.instance_id).into();
    if let Some(taints) = node["spec"]["taints"].as_array_mut() {
        taints.retain(|taint| taint["key"] != UNINITIALIZED);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        let mut node = json!({
            "metadata": {"name": "ip-10-0-0-1.ec2.internal", "labels": {"mine": "1"}},
            "spec": {"taints": taints},
        });
        if !provider.is_empty() {
            node["spec"]["providerID"] = provider.into();
        }
        node
    }

    #[test]
    fn a_new_node_learns_what_it_is_and_keeps_what_it_has() {
        let instances = [instance("running")];
        for provider in ["", "aws:///us-east-1a/i-1"] {
            let mut node = node(provider, &[UNINITIALIZED, "nvidia.com/gpu"]);
            assert_eq!(errand(&node, &instances), Some(Errand::Initialise(&instances[0])));
            initialise(&mut node, &instances[0]);
            assert_eq!(node["spec"]["taints"], json!([{"key": "nvidia.com/gpu"}]));
            assert_eq!(node["spec"]["providerID"], "aws:///us-east-1a/i-1");
            assert_eq!(
                node["metadata"]["labels"],
                json!({"mine": "1", "node.kubernetes.io/instance-type": "p5.48xlarge",
                    "topology.kubernetes.io/zone": "us-east-1a",
                    "topology.kubernetes.io/region": "us-east-1"})
            );
            assert_eq!(errand(&node, &instances), None, "once");
        }
    }

    #[test]
    fn a_node_goes_with_its_instance_and_a_stranger_stays() {
        let provider = "aws:///us-east-1a/i-1";
        let gone = [instance("terminated")];
        assert_eq!(errand(&node(provider, &[]), &gone), Some(Errand::Delete));
        assert_eq!(errand(&node(provider, &[]), &[]), Some(Errand::Delete));
        assert_eq!(errand(&node("", &[]), &[]), None);
        assert_eq!(errand(&node("", &[]), &gone), None);
        assert_eq!(errand(&node("kind://docker/x", &[]), &[]), None);
    }
}
