//! A double of NVIDIA's DRA driver: for nodes that are to offer their GPUs by DRA, it publishes in
//! ResourceSlices (`resource.k8s.io/v1`) what nvml-sim shows.
//!
//! The real one is a pod that calls the API server; this one is the lab itself, in both gears. A GPU
//! that does not answer is left out, as by a driver without device taints. Pure; each gear carries
//! its plan out.

use contract::names::DRA_DRIVER;
use nvml_sim::State;
use serde_json::{Value, json};

/// What is the double's own has this label.
const OWN: &str = "rollcall-lab/dra-driver-double";
/// Where slices are.
pub(super) const PATH: &str = "/apis/resource.k8s.io/v1/resourceslices";

/// The slice of a node whose driver shows this state.
#[must_use]
pub fn slice(node: &str, state: &State) -> Value {
    let answering = state.gpus.iter().filter(|gpu| gpu.fault.is_none() && state.module_loaded);
    let devices: Vec<Value> = answering
        .map(|gpu| {
            json!({
                "name": format!("gpu-{}", gpu.index),
                "attributes": {
                    "type": {"string": "gpu"},
                    "uuid": {"string": gpu.uuid},
                    "productName": {"string": gpu.name},
                },
                "capacity": {"memory": {"value": format!("{}Mi", gpu.memory_mib)}},
            })
        })
        .collect();
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice",
        "metadata": {"name": format!("{node}-{DRA_DRIVER}"), "labels": {OWN: "true"}},
        "spec": {
            "driver": DRA_DRIVER,
            "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": devices,
        },
    })
}

/// What is to be done about slices.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// To be made or replaced, whole.
    pub(super) apply: Vec<Value>,
    /// Names of those that go.
    pub(super) delete: Vec<String>,
}

/// Compares what is wanted with what is there. A pool that changes gets a new generation.
pub(super) fn plan<'a>(wanted: &[Value], present: impl Iterator<Item = &'a Value>) -> Plan {
    let mut plan = Plan { apply: wanted.to_vec(), delete: Vec::new() };
    for slice in present.filter(|slice| slice["metadata"]["labels"][OWN] == "true") {
        let name = &slice["metadata"]["name"];
        match plan.apply.iter().position(|wanted| wanted["metadata"]["name"] == *name) {
            Some(at) if names(&plan.apply[at]) == names(slice) => drop(plan.apply.remove(at)),
            Some(at) => {
                let generation = slice["spec"]["pool"]["generation"].as_i64().unwrap_or_default();
                plan.apply[at]["spec"]["pool"]["generation"] = (generation + 1).into();
            }
            None => plan.delete.extend(name.as_str().map(str::to_owned)),
        }
    }
    plan
}

/// The devices of a slice, by name: an API server spells quantities in its own way.
fn names(slice: &Value) -> Vec<&str> {
    let devices = slice["spec"]["devices"].as_array().into_iter().flatten();
    devices.filter_map(|device| device["name"].as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        nvml_sim::profile::for_instance("g5.12xlarge", "i-1").unwrap()
    }

    #[test]
    fn a_slice_holds_the_gpus_that_answer() {
        let mut state = state();
        assert_eq!(names(&slice("n", &state)), ["gpu-0", "gpu-1", "gpu-2", "gpu-3"]);
        state.gpu_mut(2).unwrap().fault =
            Some(nvml_sim::state::GpuFault { lost: true, ..nvml_sim::state::GpuFault::default() });
        assert_eq!(names(&slice("n", &state)), ["gpu-0", "gpu-1", "gpu-3"]);
        state.module_loaded = false;
        assert!(names(&slice("n", &state)).is_empty());
    }

    #[test]
    fn only_differences_are_written_and_only_its_own_goes() {
        let whole = slice("n", &state());
        let only = std::slice::from_ref(&whole);
        assert_eq!(plan(only, [].iter()).apply, only);
        assert_eq!(plan(only, only.iter()), Plan::default());

        let mut short = whole.clone();
        short["spec"]["devices"].as_array_mut().unwrap().pop();
        let grown = plan(only, [short].iter());
        assert_eq!(grown.apply[0]["spec"]["pool"]["generation"], 2);

        let foreign = json!({"metadata": {"name": "x"}});
        let gone = plan(&[], [whole, foreign].iter());
        assert_eq!(gone.delete, ["n-gpu.nvidia.com"]);
    }
}
