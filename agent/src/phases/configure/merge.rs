//! NodeConfigs merged as nodeadm merges them: mergo with override, and its transformers.
//!
//! | thing | rule |
//! |---|---|
//! | scalar fields | a later value wins unless it is empty |
//! | `enableOutpost` | true stays true: nodeadm's merge takes false for empty |
//! | `kubelet.flags` | concatenated |
//! | other lists of strings | replaced unless empty |
//! | `featureGates`, `environment` | per key, and false and "" count |
//! | `kubelet.config`, `baseRuntimeSpec` | deep, everything counts, null too; lists are replaced |
//! | `containerd.config` | as TOML: deep, arrays are replaced, keys sorted |

use serde_json::{Map, Value};

/// Merges the specification `later` over `earlier`.
///
/// # Errors
/// When both have a `containerd.config`, and one of them is not TOML.
pub fn merge(earlier: &mut Value, later: Value) -> Result<(), String> {
    merge_at("", earlier, later)
}

fn merge_at(path: &str, earlier: &mut Value, later: Value) -> Result<(), String> {
    match path {
        "kubelet.config"
        | "containerd.baseRuntimeSpec"
        | "featureGates"
        | "instance.environment" => merge_free(earlier, later),
        "kubelet.flags" => concatenate(earlier, later),
        "containerd.config" => merge_toml(earlier, later)?,
        _ => match (&mut *earlier, later) {
            (Value::Object(earlier), Value::Object(later)) => merge_fields(path, earlier, later)?,
            (_, later) if !is_empty(&later) => *earlier = later,
            _ => {}
        },
    }
    Ok(())
}

fn merge_fields(
    path: &str,
    earlier: &mut Map<String, Value>,
    later: Map<String, Value>,
) -> Result<(), String> {
    for (key, value) in later {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match earlier.get_mut(&key) {
            Some(below) => merge_at(&path, below, value)?,
            None => drop(earlier.insert(key, value)),
        }
    }
    Ok(())
}

fn merge_free(earlier: &mut Value, later: Value) {
    match (earlier, later) {
        (Value::Object(earlier), Value::Object(later)) => {
            for (key, value) in later {
                match earlier.get_mut(&key) {
                    Some(below) => merge_free(below, value),
                    None => drop(earlier.insert(key, value)),
                }
            }
        }
        (earlier, later) => *earlier = later,
    }
}

fn concatenate(earlier: &mut Value, later: Value) {
    match (earlier, later) {
        (Value::Array(earlier), Value::Array(later)) => earlier.extend(later),
        (earlier, later) => *earlier = later,
    }
}

fn merge_toml(earlier: &mut Value, later: Value) -> Result<(), String> {
    let (one, other) = (earlier.as_str().unwrap_or_default(), later.as_str().unwrap_or_default());
    if one.is_empty() {
        *earlier = later;
    } else if !other.is_empty() {
        let parse = |text: &str| {
            text.parse::<toml::Table>().map_err(|error| {
                format!("`spec.containerd.config` is not TOML: {}", error.message())
            })
        };
        let mut merged = parse(one)?;
        overlay(&mut merged, parse(other)?);
        *earlier = merged.to_string().into();
    }
    Ok(())
}

fn overlay(earlier: &mut toml::Table, later: toml::Table) {
    for (key, value) in later {
        match (earlier.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(value)) => overlay(below, value),
            (_, value) => drop(earlier.insert(key, value)),
        }
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

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
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
                "a service's environment is cleared by null",
                json!({"instance": {"environment": {"default": {"A": "1"}, "x": {"B": "2"}}}}),
                json!({"instance": {"environment": {"default": null, "x": {}}}}),
                json!({"instance": {"environment": {"default": null, "x": {"B": "2"}}}}),
            ),
            (
                "kubelet's configuration is merged deep, lists replaced, zero and null count",
                json!({"kubelet": {"config": {"maxPods": 110, "a": 1, "kubeReserved": {"cpu": "1", "memory": "1Gi"},
                       "registerWithTaints": [{"key": "a"}]}}}),
                json!({"kubelet": {"config": {"maxPods": 0, "a": null, "kubeReserved": {"cpu": "2"},
                       "registerWithTaints": [{"key": "b"}]}}}),
                json!({"kubelet": {"config": {"maxPods": 0, "a": null, "kubeReserved": {"cpu": "2", "memory": "1Gi"},
                       "registerWithTaints": [{"key": "b"}]}}}),
            ),
            (
                "what was not there comes in",
                json!({}),
                json!({"instance": {"localStorage": {"strategy": "RAID0"}}}),
                json!({"instance": {"localStorage": {"strategy": "RAID0"}}}),
            ),
        ] {
            let mut merged = earlier;
            merge(&mut merged, later).unwrap();
            assert_eq!(merged, expected, "{rule}");
        }
    }

    #[test]
    fn containerds_configuration_is_merged_as_toml() {
        let config = |text: &str| json!({"containerd": {"config": text}});
        let merged = |earlier: &str, later: &str| {
            let mut merged = config(earlier);
            merge(&mut merged, config(later)).map(|()| merged)
        };
        let both = merged("[a]\nx = true\nl = [1, 2]\n[b]\ny = 1\n", "[a]\nx = false\nl = [3]\n");
        let table: toml::Table =
            both.unwrap()["containerd"]["config"].as_str().unwrap().parse().unwrap();
        assert_eq!(table["a"]["x"].as_bool(), Some(false));
        assert_eq!(table["a"]["l"].as_array().unwrap().len(), 1);
        assert_eq!(table["b"]["y"].as_integer(), Some(1));
        // Alone, nodeadm does not read it either.
        assert_eq!(merged("", "= broken"), Ok(config("= broken")));
        assert_eq!(merged("a = 1", ""), Ok(config("a = 1")));
        assert!(merged("a = 1", "= broken").unwrap_err().contains("not TOML"));
    }
}
