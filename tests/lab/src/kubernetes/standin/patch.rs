//! The three patch languages in use: JSON merge, strategic merge, and server-side apply. Pure.
//!
//! Strategic merge and apply merge lists of objects by a key; which key belongs to which list is
//! the Kubernetes API's `patchMergeKey`, here by field name. A list that is not named is atomic
//! (`spec.taints`, `tolerations`, RBAC `rules`), as in the API.

use serde_json::{Map, Value};

/// RFC 7386.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    let target = as_object(target);
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Kubernetes' strategic merge patch.
pub(super) fn strategic(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if patch.get("$patch").and_then(Value::as_str) == Some("replace") {
        let kept = patch.iter().filter(|(key, _)| !key.starts_with('$'));
        *target = Value::Object(kept.map(|(k, v)| (k.clone(), v.clone())).collect());
        return;
    }
    let target = as_object(target);
    if let Some(kept) = patch.get("$retainKeys").and_then(Value::as_array) {
        target.retain(|key, _| kept.iter().any(|name| name.as_str() == Some(key)));
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            delete_primitives(target, list, value);
        } else if key.starts_with('$') {
            // `$setElementOrder` only arranges; order carries no meaning in keyed lists.
        } else if value.is_null() {
            target.remove(key);
        } else {
            strategic_field(target, key, value);
        }
    }
}

fn strategic_field(target: &mut Map<String, Value>, key: &str, value: &Value) {
    let slot = target.entry(key.to_owned()).or_insert(Value::Null);
    match (value, merge_keys(key, value)) {
        (Value::Object(_), _) => strategic(slot, value),
        (Value::Array(items), Some(keys)) => merge_list(slot, items, keys),
        (Value::Array(items), None) if PRIMITIVE_SETS.contains(&key) => add_primitives(slot, items),
        _ => *slot = value.clone(),
    }
}

/// Lists of strings that merge as sets.
const PRIMITIVE_SETS: &[&str] = &["finalizers"];

/// The fields that tell the entries of a list apart, when it merges by entry.
fn merge_keys(field: &str, list: &Value) -> Option<&'static [&'static str]> {
    let keys: &'static [&'static str] = match field {
        "conditions" | "addresses" => &["type"],
        "containers" | "initContainers" | "volumes" | "env" | "imagePullSecrets" | "secrets" => {
            &["name"]
        }
        "volumeMounts" => &["mountPath"],
        "ports" if list[0].get("containerPort").is_some() => &["containerPort", "protocol"],
        "ports" => &["port", "protocol"],
        "ownerReferences" => &["uid"],
        "topologySpreadConstraints" => &["topologyKey", "whenUnsatisfiable"],
        _ => return None,
    };
    let array = list.as_array()?;
    // `ports` of something else, or a list of strings by one of these names: atomic.
    array
        .iter()
        .all(|item| item.get(keys[0]).is_some() || item.get("$patch").is_some())
        .then_some(keys)
}

fn same_entry(a: &Value, b: &Value, keys: &[&str]) -> bool {
    keys.iter().all(|key| {
        // An absent protocol is TCP; other keys are always there.
        let read = |item: &Value| match item.get(*key) {
            None if *key == "protocol" => Value::from("TCP"),
            None => Value::Null,
            Some(value) => value.clone(),
        };
        read(a) == read(b)
    })
}

fn merge_list(slot: &mut Value, items: &[Value], keys: &[&str]) {
    let list = as_array(slot);
    if items.iter().any(|item| item["$patch"] == "replace") {
        list.clear();
    }
    for item in items {
        let found = list.iter().position(|have| same_entry(have, item, keys));
        match (item["$patch"].as_str(), found) {
            (Some("delete"), Some(at)) => {
                list.remove(at);
            }
            (Some(_), _) => {}
            (None, Some(at)) => strategic(&mut list[at], item),
            (None, None) => {
                let mut fresh = Value::Null;
                strategic(&mut fresh, item);
                list.push(fresh);
            }
        }
    }
}

fn add_primitives(slot: &mut Value, items: &[Value]) {
    let list = as_array(slot);
    for item in items {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

fn delete_primitives(target: &mut Map<String, Value>, list: &str, gone: &Value) {
    let gone = gone.as_array().cloned().unwrap_or_default();
    if let Some(have) = target.get_mut(list).and_then(Value::as_array_mut) {
        have.retain(|item| !gone.contains(item));
    }
}

/// Server-side apply: `configuration` is merged in, and what this manager applied before and no
/// longer names goes away. Conflicts with other managers are not tracked: the last writer wins.
pub(super) fn apply(target: &mut Value, previous: Option<&Value>, configuration: &Value) {
    if let Some(previous) = previous {
        remove_abandoned(target, previous, configuration);
    }
    strategic(target, configuration);
}

/// Takes out of `target` what `previous` named and `next` does not; a map or list that this empties
/// goes too, one in which others have entries stays.
fn remove_abandoned(target: &mut Value, previous: &Value, next: &Value) {
    let (Some(target), Some(previous)) = (target.as_object_mut(), previous.as_object()) else {
        return;
    };
    for (key, old) in previous {
        let new = next.get(key).unwrap_or(&Value::Null);
        let Some(live) = target.get_mut(key) else { continue };
        let emptied = match (merge_keys(key, old), old, &mut *live) {
            (Some(keys), _, Value::Array(live)) => {
                let old = old.as_array().map_or(&[][..], Vec::as_slice);
                drop_entries(live, old, new.as_array().map_or(&[][..], Vec::as_slice), keys);
                live.is_empty()
            }
            (None, Value::Object(_), Value::Object(_)) => {
                remove_abandoned(live, old, new);
                live.as_object().is_some_and(Map::is_empty)
            }
            _ => true,
        };
        if emptied && new.is_null() {
            target.remove(key);
        }
    }
}

fn drop_entries(live: &mut Vec<Value>, old: &[Value], new: &[Value], keys: &[&str]) {
    let named = |list: &[Value], entry: &Value| list.iter().any(|e| same_entry(e, entry, keys));
    live.retain(|entry| !named(old, entry) || named(new, entry));
}

fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made an object one line above")
}

fn as_array(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().expect("made an array one line above")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_patch_replaces_lists_and_removes_nulls() {
        let mut node = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        merge(&mut node, &json!({"a": {"b": null, "d": 3}, "l": [3]}));
        assert_eq!(node, json!({"a": {"c": 2, "d": 3}, "l": [3]}));
    }

    #[test]
    fn strategic_merge_changes_one_condition_and_leaves_the_others() {
        let mut node = json!({"status": {"conditions": [
            {"type": "Ready", "status": "False", "reason": "KubeletNotReady"},
            {"type": "DiskPressure", "status": "False"}]}});
        let patch = json!({"status": {
            "$setElementOrder/conditions": [{"type": "Ready"}, {"type": "DiskPressure"}],
            "conditions": [{"type": "Ready", "status": "True"},
                           {"type": "AcceleratedHardwareReady", "status": "True"}]}});
        strategic(&mut node, &patch);
        assert_eq!(
            node,
            json!({"status": {"conditions": [
                {"type": "Ready", "status": "True", "reason": "KubeletNotReady"},
                {"type": "DiskPressure", "status": "False"},
                {"type": "AcceleratedHardwareReady", "status": "True"}]}})
        );
    }

    #[test]
    fn strategic_merge_knows_keys_directives_and_atomic_lists() {
        let table = [
            // (target, patch, result)
            (
                json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}]}),
                json!({"containers": [{"name": "a", "image": "2"}]}),
                json!({"containers": [{"name": "a", "image": "2"}, {"name": "b"}]}),
            ),
            (
                json!({"containers": [{"name": "a"}, {"name": "b"}]}),
                json!({"containers": [{"name": "a", "$patch": "delete"}]}),
                json!({"containers": [{"name": "b"}]}),
            ),
            (
                json!({"taints": [{"key": "x", "effect": "NoSchedule"}]}),
                json!({"taints": [{"key": "y", "effect": "NoSchedule"}]}),
                json!({"taints": [{"key": "y", "effect": "NoSchedule"}]}),
            ),
            (
                json!({"finalizers": ["a"]}),
                json!({"finalizers": ["b"]}),
                json!({"finalizers": ["a", "b"]}),
            ),
            (
                json!({"finalizers": ["a", "b"]}),
                json!({"$deleteFromPrimitiveList/finalizers": ["a"]}),
                json!({"finalizers": ["b"]}),
            ),
            (
                json!({"m": {"a": 1}}),
                json!({"m": {"$patch": "replace", "b": 2}}),
                json!({"m": {"b": 2}}),
            ),
            (
                json!({"ports": [{"containerPort": 1, "protocol": "TCP"}]}),
                json!({"ports": [{"containerPort": 1, "name": "m"}]}),
                json!({"ports": [{"containerPort": 1, "protocol": "TCP", "name": "m"}]}),
            ),
        ];
        for (mut target, patch, expected) in table {
            strategic(&mut target, &patch);
            assert_eq!(target, expected, "{patch}");
        }
    }

    #[test]
    fn apply_removes_what_its_manager_no_longer_names_and_nothing_else() {
        let before = json!({"metadata": {"labels": {"mine": "1", "kept": "1"},
            "annotations": {"only": "1"}},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let mut live = before.clone();
        live["metadata"]["labels"]["theirs"] = "2".into();
        live["spec"]["containers"][0]["injected"] = true.into();
        let next = json!({"metadata": {"labels": {"kept": "2"}},
            "spec": {"containers": [{"name": "a", "image": "i"}]}});
        apply(&mut live, Some(&before), &next);
        assert_eq!(
            live,
            json!({"metadata": {"labels": {"kept": "2", "theirs": "2"}},
                "spec": {"containers": [{"name": "a", "injected": true, "image": "i"}]}})
        );
    }
}
