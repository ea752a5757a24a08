//! NodeConfigs merged as nodeadm merges them (`reference`: measured with `nodeadm config dump`).
//!
//! | thing | rule |
//! |---|---|
//! | scalar fields | a later value wins unless it is empty |
//! | `enableOutpost` | true stays true: nodeadm's merge takes false for empty |
//! | `kubelet.flags` | concatenated |
//! | other lists of strings | replaced unless empty |
//! | `featureGates`, `environment` | per key, and false and "" count |
//! | `kubelet.config`, `baseRuntimeSpec` | deep, everything counts, lists are replaced |

use serde_json::{Map, Value};

/// Merges `later` over `earlier`. `containerd.config`, which nodeadm merges as TOML, is treated as
/// a scalar here: nothing that the join decides hangs on it.
pub fn merge(earlier: &mut Value, later: Value) {
    merge_at("", earlier, later);
}

fn merge_at(path: &str, earlier: &mut Value, later: Value) {
    match path {
        "spec.kubelet.config"
        | "spec.containerd.baseRuntimeSpec"
        | "spec.featureGates"
        | "spec.instance.environment" => merge_free(earlier, later),
        "spec.kubelet.flags" => concatenate(earlier, later),
        _ => match (earlier, later) {
            (Value::Object(earlier), Value::Object(later)) => merge_fields(path, earlier, later),
            (earlier, later) if !is_empty(&later) => *earlier = later,
            _ => {}
        },
    }
}

fn merge_fields(path: &str, earlier: &mut Map<String, Value>, later: Map<String, Value>) {
    for (key, value) in later {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        merge_at(&path, earlier.entry(key).or_insert(Value::Null), value);
    }
}

fn merge_free(earlier: &mut Value, later: Value) {
    match (earlier, later) {
        (Value::Object(earlier), Value::Object(later)) => {
            for (key, value) in later {
                merge_free(earlier.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (earlier, later) => *earlier = later,
    }
}

fn concatenate(earlier: &mut Value, later: Value) {
    match (earlier, later) {
        (Value::Array(earlier), Value::Array(later)) => earlier.extend(later),
        (earlier, later) if !is_empty(&later) => *earlier = later,
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(earlier: Value, later: Value) -> Value {
        let mut result = json!({ "spec": earlier });
        merge(&mut result, json!({ "spec": later }));
        result["spec"].clone()
    }

    #[test]
    fn follows_nodeadms_rules() {
        for (rule, earlier, later, expected) in [
            (
                "a later scalar wins",
                json!({"cluster": {"name": "a", "cidr": "10.0.0.0/16"}}),
                json!({"cluster": {"name": "b"}}),
                json!({"cluster": {"name": "b", "cidr": "10.0.0.0/16"}}),
            ),
            (
                "an empty scalar never clears",
                json!({"cluster": {"name": "a"}}),
                json!({"cluster": {"name": ""}}),
                json!({"cluster": {"name": "a"}}),
            ),
            (
                "enableOutpost stays true",
                json!({"cluster": {"enableOutpost": true}}),
                json!({"cluster": {"enableOutpost": false}}),
                json!({"cluster": {"enableOutpost": true}}),
            ),
            (
                "flags are concatenated",
                json!({"kubelet": {"flags": ["--a"]}}),
                json!({"kubelet": {"flags": ["--b", "--a"]}}),
                json!({"kubelet": {"flags": ["--a", "--b", "--a"]}}),
            ),
            (
                "other lists are replaced",
                json!({"instance": {"network": {"nameservers": ["1"], "domains": ["x"]}}}),
                json!({"instance": {"network": {"nameservers": ["2"], "domains": []}}}),
                json!({"instance": {"network": {"nameservers": ["2"], "domains": ["x"]}}}),
            ),
            (
                "false and empty count in gates and environment",
                json!({"featureGates": {"InstanceIdNodeName": true, "FastImagePull": true},
                       "instance": {"environment": {"default": {"HTTPS_PROXY": "p", "A": "1"}}}}),
                json!({"featureGates": {"InstanceIdNodeName": false},
                       "instance": {"environment": {"default": {"HTTPS_PROXY": ""}}}}),
                json!({"featureGates": {"InstanceIdNodeName": false, "FastImagePull": true},
                       "instance": {"environment": {"default": {"HTTPS_PROXY": "", "A": "1"}}}}),
            ),
            (
                "kubelet's configuration is merged deep, lists replaced, zero counts",
                json!({"kubelet": {"config": {"maxPods": 110, "kubeReserved": {"cpu": "1", "memory": "1Gi"},
                       "registerWithTaints": [{"key": "a"}]}}}),
                json!({"kubelet": {"config": {"maxPods": 0, "kubeReserved": {"cpu": "2"},
                       "registerWithTaints": [{"key": "b"}]}}}),
                json!({"kubelet": {"config": {"maxPods": 0, "kubeReserved": {"cpu": "2", "memory": "1Gi"},
                       "registerWithTaints": [{"key": "b"}]}}}),
            ),
            (
                "what was not there comes in",
                json!({}),
                json!({"instance": {"localStorage": {"strategy": "RAID0"}}}),
                json!({"instance": {"localStorage": {"strategy": "RAID0"}}}),
            ),
        ] {
            assert_eq!(merged(earlier, later), expected, "{rule}");
        }
    }
}
