//! ResourceSlices (`resource.k8s.io/v1`): how a DRA driver says which devices a node has. The node's
//! own agent and `control` count them alike.

use std::collections::BTreeMap;

use crate::names::DRA_DRIVER;
use serde_json::Value;

/// GPUs in a node's slices, and how many of them pods may have: of each pool the newest generation
/// alone, whole GPUs and not their MIG parts, and without those that a taint keeps pods from.
#[must_use]
pub fn gpus(slices: &[Value], node: &str) -> (u32, u32) {
    let own = slices
        .iter()
        .map(|slice| &slice["spec"])
        .filter(|spec| spec["driver"] == DRA_DRIVER && spec["nodeName"] == node);
    let mut newest: BTreeMap<&str, (i64, Vec<&Value>)> = BTreeMap::new();
    for spec in own {
        let pool = spec["pool"]["name"].as_str().unwrap_or_default();
        let generation = spec["pool"]["generation"].as_i64().unwrap_or_default();
        let known = newest.entry(pool).or_insert((generation, Vec::new()));
        if generation > known.0 {
            *known = (generation, Vec::new());
        }
        if generation == known.0 {
            known.1.extend(spec["devices"].as_array().into_iter().flatten());
        }
    }
    let gpus: Vec<&Value> =
        newest.into_values().flat_map(|(_, devices)| devices).filter(|d| is_gpu(d)).collect();
    let count = |some: usize| u32::try_from(some).unwrap_or(u32::MAX);
    (count(gpus.len()), count(gpus.iter().filter(|device| !is_tainted(device)).count()))
}

/// NVIDIA's driver says of each device whether it is a `gpu`, a `mig` part or something else.
fn is_gpu(device: &Value) -> bool {
    let kind = &device["attributes"]["type"]["string"];
    kind.is_null() || kind == "gpu"
}

fn is_tainted(device: &Value) -> bool {
    let taints = device["taints"].as_array().into_iter().flatten();
    taints
        .into_iter()
        .any(|taint| taint["effect"] == "NoSchedule" || taint["effect"] == "NoExecute")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(node: &str, driver: &str, generation: i64, devices: &Value) -> Value {
        json!({"spec": {"driver": driver, "nodeName": node, "devices": devices,
            "pool": {"name": node, "generation": generation, "resourceSliceCount": 1}}})
    }

    fn device(kind: &str) -> Value {
        json!({"name": "d", "attributes": {"type": {"string": kind}}})
    }

    #[test]
    fn only_whole_gpus_of_this_node_and_its_driver_count() {
        let two = json!([device("gpu"), {"name": "untyped"}]);
        let slices = [
            slice("a", DRA_DRIVER, 1, &two),
            slice("a", DRA_DRIVER, 1, &json!([device("gpu"), device("mig")])),
            slice("b", DRA_DRIVER, 1, &two),
            slice("a", "dra.net", 1, &two),
        ];
        assert_eq!(gpus(&slices, "a"), (3, 3));
        assert_eq!(gpus(&slices, "c"), (0, 0));
    }

    #[test]
    fn an_old_generation_and_tainted_devices_are_not_on_offer() {
        let mut lost = device("gpu");
        lost["taints"] = json!([{"key": "gpu.nvidia.com/xid", "effect": "NoExecute"}]);
        let mut noted = device("gpu");
        noted["taints"] = json!([{"key": "x", "effect": "None"}]);
        let slices = [
            slice("a", DRA_DRIVER, 1, &json!([device("gpu"), device("gpu"), device("gpu")])),
            slice("a", DRA_DRIVER, 2, &json!([lost, noted])),
        ];
        assert_eq!(gpus(&slices, "a"), (2, 1));
    }
}
