//! How nodeadm merges one configuration over another: mergo with override, as probed with
//! `nodeadm config dump`. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::config::{ConfigError, NodeConfigSpec};

/// Merges `later` over `earlier`.
pub(super) fn merge(
    earlier: NodeConfigSpec,
    later: NodeConfigSpec,
) -> Result<NodeConfigSpec, ConfigError> {
    let mut merged = earlier;
    let (to, from) = (&mut merged.cluster, later.cluster);
    scalar(&mut to.name, from.name);
    scalar(&mut to.api_server_endpoint, from.api_server_endpoint);
    scalar(&mut to.certificate_authority, from.certificate_authority);
    scalar(&mut to.cidr, from.cidr);
    scalar(&mut to.id, from.id);
    // A false counts as empty, so that true stays.
    if from.enable_outpost == Some(true) || to.enable_outpost.is_none() {
        to.enable_outpost = from.enable_outpost.or(to.enable_outpost);
    }

    merged.kubelet.flags.extend(later.kubelet.flags);
    scalar(&mut merged.kubelet.max_pods_expression, later.kubelet.max_pods_expression);
    free_map(&mut merged.kubelet.config, later.kubelet.config);
    free_map(&mut merged.containerd.base_runtime_spec, later.containerd.base_runtime_spec);
    merged.containerd.config = toml(&merged.containerd.config, &later.containerd.config)?;

    let (to, from) = (&mut merged.instance, later.instance);
    scalar(&mut to.local_storage.strategy, from.local_storage.strategy);
    scalar(&mut to.local_storage.mount_path, from.local_storage.mount_path);
    list(&mut to.local_storage.disabled_mounts, from.local_storage.disabled_mounts);
    list(&mut to.network.nameservers, from.network.nameservers);
    list(&mut to.network.domains, from.network.domains);
    for (service, variables) in from.environment {
        match (to.environment.entry(service).or_default(), variables) {
            (Some(earlier), Some(later)) => earlier.extend(later),
            (earlier, later) => *earlier = later,
        }
    }
    keys(&mut merged.feature_gates, later.feature_gates);
    Ok(merged)
}

/// A later value wins unless it is empty; nothing clears.
fn scalar(to: &mut String, from: String) {
    if !from.is_empty() {
        *to = from;
    }
}

/// A list is replaced by a later one unless that is empty.
fn list(to: &mut Vec<String>, from: Vec<String>) {
    if !from.is_empty() {
        *to = from;
    }
}

/// Each key of its own; false overrides.
fn keys(to: &mut BTreeMap<String, bool>, from: BTreeMap<String, bool>) {
    to.extend(from);
}

/// Deep; false, 0, null and empty text override, lists are replaced.
fn free_map(to: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (to.get_mut(&key), value) {
            (Some(Value::Object(below)), Value::Object(later)) => free_map(below, later),
            (_, value) => {
                to.insert(key, value);
            }
        }
    }
}

/// As TOML, deep; arrays are replaced, false overrides. The result has sorted keys.
fn toml(earlier: &str, later: &str) -> Result<String, ConfigError> {
    if later.trim().is_empty() {
        return Ok(earlier.to_owned());
    }
    if earlier.is_empty() {
        return Ok(later.to_owned());
    }
    let parse = |text: &str| {
        text.parse::<toml::Table>().map_err(|e| ConfigError::Toml(e.message().to_owned()))
    };
    let mut merged = parse(earlier)?;
    overlay(&mut merged, parse(later)?);
    toml::to_string(&merged).map_err(|e| ConfigError::Toml(e.to_string()))
}

pub(super) fn overlay(to: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (to.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(later)) => overlay(below, later),
            (_, value) => {
                to.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> NodeConfigSpec {
        let text = format!("apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec: {yaml}\n");
        super::super::config::parse(text.as_bytes()).unwrap()
    }

    /// Rows: earlier, later, merged. From the table of rules that was probed on nodeadm itself.
    const RULES: &[(&str, &str, &str, &str)] = &[
        (
            "scalar: later wins",
            "{cluster: {name: a}}",
            "{cluster: {name: b}}",
            "{cluster: {name: b}}",
        ),
        (
            "scalar: empty never clears",
            "{cluster: {name: a, cidr: c}}",
            "{cluster: {name: ''}}",
            "{cluster: {name: a, cidr: c}}",
        ),
        (
            "bool pointer: true stays",
            "{cluster: {enableOutpost: true}}",
            "{cluster: {enableOutpost: false}}",
            "{cluster: {enableOutpost: true}}",
        ),
        (
            "bool pointer: true wins",
            "{cluster: {enableOutpost: false}}",
            "{cluster: {enableOutpost: true}}",
            "{cluster: {enableOutpost: true}}",
        ),
        (
            "flags: concatenated",
            "{kubelet: {flags: [a]}}",
            "{kubelet: {flags: [b]}}",
            "{kubelet: {flags: [a, b]}}",
        ),
        (
            "lists: replaced",
            "{instance: {network: {nameservers: [a, b]}}}",
            "{instance: {network: {nameservers: [c]}}}",
            "{instance: {network: {nameservers: [c]}}}",
        ),
        (
            "lists: empty never clears",
            "{instance: {localStorage: {disabledMounts: [SOCI]}}}",
            "{instance: {localStorage: {disabledMounts: []}}}",
            "{instance: {localStorage: {disabledMounts: [SOCI]}}}",
        ),
        (
            "gates: per key, false overrides",
            "{featureGates: {A: true, B: true}}",
            "{featureGates: {A: false}}",
            "{featureGates: {A: false, B: true}}",
        ),
        (
            "environment: per key, empty overrides",
            "{instance: {environment: {default: {A: x, B: y}}}}",
            "{instance: {environment: {default: {A: ''}}}}",
            "{instance: {environment: {default: {A: '', B: y}}}}",
        ),
        (
            "kubelet.config: deep, false and 0 override",
            "{kubelet: {config: {a: {b: true, c: 1}, d: x}}}",
            "{kubelet: {config: {a: {b: false}, d: ''}}}",
            "{kubelet: {config: {a: {b: false, c: 1}, d: ''}}}",
        ),
        (
            "kubelet.config: lists replaced",
            "{kubelet: {config: {registerWithTaints: [{key: a}]}}}",
            "{kubelet: {config: {registerWithTaints: [{key: b}]}}}",
            "{kubelet: {config: {registerWithTaints: [{key: b}]}}}",
        ),
        (
            "baseRuntimeSpec: deep",
            "{containerd: {baseRuntimeSpec: {process: {rlimits: [1], x: 1}}}}",
            "{containerd: {baseRuntimeSpec: {process: {rlimits: [2]}}}}",
            "{containerd: {baseRuntimeSpec: {process: {rlimits: [2], x: 1}}}}",
        ),
        (
            "maxPodsExpression",
            "{kubelet: {maxPodsExpression: a}}",
            "{kubelet: {flags: [x]}}",
            "{kubelet: {maxPodsExpression: a, flags: [x]}}",
        ),
        (
            "storage",
            "{instance: {localStorage: {strategy: RAID0, mountPath: /a}}}",
            "{instance: {localStorage: {strategy: RAID10}}}",
            "{instance: {localStorage: {strategy: RAID10, mountPath: /a}}}",
        ),
    ];

    #[test]
    fn the_rules() {
        for (rule, earlier, later, expected) in RULES {
            let merged = merge(spec(earlier), spec(later)).unwrap();
            assert_eq!(merged, spec(expected), "{rule}");
        }
    }

    #[test]
    fn containerd_is_merged_as_toml() {
        let earlier = "[plugins.a]\nx = true\nlist = [1, 2]\n[plugins.b]\ny = 1\n";
        let later = "[plugins.a]\nx = false\nlist = [3]\n";
        let merged: toml::Table = toml(earlier, later).unwrap().parse().unwrap();
        assert_eq!(merged["plugins"]["a"]["x"].as_bool(), Some(false));
        assert_eq!(merged["plugins"]["a"]["list"].as_array().unwrap().len(), 1);
        assert_eq!(merged["plugins"]["b"]["y"].as_integer(), Some(1));
        assert_eq!(toml(earlier, " \n").unwrap(), earlier);
        assert!(matches!(toml("a = 1", "= broken"), Err(ConfigError::Toml(_))));
    }
}
