//! Phase 8: network up, Node Ready, and as many GPUs on offer as NVML sees.

pub mod ipamd;
pub mod offer;

use contract::agent_config::GpuOffer;
use contract::offer::{Devices, Plugged};
use contract::{ErrorChain, Finding, Phase, Reason, Verdict};
use serde_json::Value;

use self::ipamd::Ipamd;
pub use self::offer::{Slices, look_at_slices};
use crate::host::Deadline;
use crate::kube::Client;

/// What the Node object says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Why there is no Node object to read; the rest is then empty.
    pub unread: Option<String>,
    /// Status of the condition Ready: `True`, `False`, `Unknown`; empty while there is none.
    pub ready: String,
    /// Its message.
    pub message: String,
    /// What kubelet has been offered.
    pub capacity: Plugged,
    /// What of it pods may have.
    pub allocatable: Plugged,
    /// How the VPC CNI's daemon is, where the network is its.
    pub ipamd: Ipamd,
    /// GPUs in this node's ResourceSlices.
    pub slices: Slices,
}

/// Looks at the Node and at its ResourceSlices.
pub async fn gather(kube: &Client, name: &str, offer: GpuOffer, deadline: Deadline) -> Facts {
    let (node, slices) =
        tokio::join!(kube.node(name, deadline), look_at_slices(kube, name, offer, deadline));
    let facts = Facts::of(node.map_err(|error| ErrorChain(&error).to_string()));
    Facts { slices, ..facts }
}

/// What the node must offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What NVML sees.
    pub devices: Devices,
    /// How they are offered.
    pub offer: GpuOffer,
}

impl Facts {
    /// Reads a Node object.
    #[must_use]
    pub fn of(node: Result<Option<Value>, String>) -> Self {
        let node = match node {
            Ok(Some(node)) => node,
            Ok(None) => return Self::unread("the Node object is gone".into()),
            Err(why) => return Self::unread(why),
        };
        let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
        let ready = conditions.into_iter().flatten().find(|c| c["type"] == "Ready");
        let text = |key: &str| ready.and_then(|c| c[key].as_str()).unwrap_or_default().to_owned();
        let plugged = |key: &str| {
            let all = node["status"][key].as_object().into_iter().flatten();
            Plugged::of(all.filter_map(|(name, count)| Some((name.as_str(), count.as_str()?))))
        };
        Self {
            unread: None,
            ready: text("status"),
            message: text("message"),
            capacity: plugged("capacity"),
            allocatable: plugged("allocatable"),
            ipamd: Ipamd::Unknown,
            slices: Slices::NotAsked,
        }
    }

    fn unread(why: String) -> Self {
        Self { unread: Some(why), ..Self::default() }
    }
}

/// Whether workloads can run here. Everything that is missing can still come.
#[must_use]
pub fn verdict(facts: &Facts, wanted: Wanted) -> Verdict {
    let missing = || offer::of(wanted.offer).missing(facts, wanted.devices);
    match readiness(facts).or_else(missing) {
        None => Verdict::of(offer::twice(facts).into_iter().collect()),
        Some((reason, summary)) => {
            Verdict::Wait(Box::new(Finding::new(reason, Phase::Ready, summary)))
        }
    }
}

fn readiness(facts: &Facts) -> Option<(Reason, String)> {
    if let Some(why) = &facts.unread {
        return Some((Reason::NodeNotReady, why.clone()));
    }
    // Ready may be said on the strength of a configuration that an earlier ipamd has left.
    if let Ipamd::Ill(why) = &facts.ipamd {
        return Some((Reason::IpamdUnhealthy, why.clone()));
    }
    if facts.ready == "True" {
        return None;
    }
    // kubelet's own words for a network that is not up; they stand between other causes.
    let is_network = ["NetworkReady=false", "NetworkPluginNotReady", "cni plugin not initialized"]
        .iter()
        .any(|words| facts.message.contains(words));
    if is_network {
        return Some((Reason::CniNotReady, facts.message.clone()));
    }
    let summary = match (facts.ready.as_str(), facts.message.as_str()) {
        ("", _) => "kubelet has not said yet whether the node is Ready".to_owned(),
        (status, "") => format!("Ready is {status}"),
        (status, message) => format!("Ready is {status}: {message}"),
    };
    Some((Reason::NodeNotReady, summary))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kube::KubeError;

    const WANTED: Wanted = Wanted { devices: Devices::whole(8), offer: GpuOffer::DevicePlugin };

    fn node(status: &str, message: &str, gpus: &Value) -> Facts {
        Facts::of(Ok(Some(json!({"status": {
            "conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": status, "message": message},
            ],
            "capacity": gpus, "allocatable": gpus,
        }}))))
    }

    fn word(facts: &Facts, wanted: Wanted) -> String {
        match verdict(facts, wanted) {
            Verdict::Pass => "pass".into(),
            Verdict::Wait(finding) => finding.reason.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ready_needs_network_node_and_gpus() {
        let all = json!({"nvidia.com/gpu": "8"});
        let cni = "container runtime network not ready: NetworkReady=false \
                   reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized";
        for (facts, expected) in [
            (node("True", "", &all), "pass"),
            (node("False", cni, &all), "CniNotReady"),
            (node("False", "PLEG is not healthy", &all), "NodeNotReady"),
            (node("Unknown", "", &all), "NodeNotReady"),
            (node("True", "", &json!({})), "DevicePluginAbsent"),
            (node("True", "", &json!({"nvidia.com/gpu": "0"})), "DevicePluginAbsent"),
            (node("True", "", &json!({"nvidia.com/gpu": "7"})), "GpuAllocatableShort"),
            (Facts::of(Ok(Some(json!({})))), "NodeNotReady"),
            (Facts::of(Ok(None)), "NodeNotReady"),
            (Facts::of(Err("timeout".into())), "NodeNotReady"),
        ] {
            assert_eq!(word(&facts, WANTED), expected, "{facts:?}");
        }
    }

    #[test]
    fn a_network_daemon_that_is_ill_comes_before_what_kubelet_says() {
        let all = json!({"nvidia.com/gpu": "8"});
        for (ready, message) in [("True", ""), ("False", "cni plugin not initialized")] {
            let ill = Ipamd::Ill("ipamd answers 500".into());
            let facts = Facts { ipamd: ill, ..node(ready, message, &all) };
            assert_eq!(word(&facts, WANTED), "IpamdUnhealthy");
        }
        let up = Facts { ipamd: Ipamd::Answers, ..node("True", "", &all) };
        assert_eq!(word(&up, WANTED), "pass");
    }

    #[test]
    fn gpus_on_offer_twice_are_said_and_keep_nobody_out() {
        let slices = Slices::Seen { capacity: 8, allocatable: 8 };
        let wanted = Wanted { offer: GpuOffer::Dra, ..WANTED };
        let once = Facts { slices: slices.clone(), ..node("True", "", &json!({})) };
        assert_eq!(word(&once, wanted), "pass");
        let both = Facts { slices, ..node("True", "", &json!({"nvidia.com/gpu": "8"})) };
        assert!(matches!(verdict(&both, wanted), Verdict::Degraded(found)
            if found[0].reason == Reason::GpuAdvertisedTwice));
    }

    #[test]
    fn what_nobody_offers_is_not_waited_for() {
        let facts = node("True", "", &json!({}));
        let none = Wanted { devices: Devices::whole(0), ..WANTED };
        for wanted in [none, Wanted { offer: GpuOffer::None, ..WANTED }] {
            assert_eq!(word(&facts, wanted), "pass");
        }
    }

    #[test]
    fn divided_gpus_are_offered_by_the_device_plugins_strategy() {
        // Two of eight in seven parts each.
        let some = Devices { gpus: 8, divided: 2, parts: 14 };
        let all = Devices { gpus: 8, divided: 8, parts: 56 };
        for (devices, gpus, parts, expected) in [
            (some, "6", "14", "pass"),
            (some, "6", "13", "GpuAllocatableShort"),
            (some, "5", "14", "GpuAllocatableShort"),
            // Strategy none: divided or not, a GPU is a GPU.
            (some, "8", "0", "pass"),
            (some, "0", "0", "DevicePluginAbsent"),
            // Strategy single: each part is a GPU.
            (all, "56", "0", "pass"),
            (all, "55", "0", "GpuAllocatableShort"),
            (all, "8", "0", "pass"),
            (all, "0", "56", "pass"),
            (all, "0", "50", "GpuAllocatableShort"),
        ] {
            let offered = json!({"nvidia.com/gpu": gpus, "nvidia.com/mig-1g.10gb": parts});
            let wanted = Wanted { devices, ..WANTED };
            let said = word(&node("True", "", &offered), wanted);
            assert_eq!(said, expected, "{devices:?}: {gpus} and {parts}");
        }
    }

    #[test]
    fn by_dra_the_devices_of_the_nodes_slices_are_counted() {
        let wanted = Wanted { offer: GpuOffer::Dra, ..WANTED };
        let ready = node("True", "", &json!({}));
        let seen = |capacity, allocatable| Slices::Seen { capacity, allocatable };
        for (slices, expected) in [
            (seen(8, 8), "pass"),
            (seen(0, 0), "DevicePluginAbsent"),
            (seen(8, 7), "GpuAllocatableShort"),
            (seen(7, 7), "GpuAllocatableShort"),
            (Slices::Unread("timeout".into()), "DevicePluginAbsent"),
            // A missing right makes a fact unknown, never a failure.
            (Slices::of(Err(KubeError::Forbidden("no".into())), "n1"), "pass"),
            (Slices::of(Ok(None), "n1"), "pass"),
        ] {
            let facts = Facts { slices: slices.clone(), ..ready.clone() };
            assert_eq!(word(&facts, wanted), expected, "{slices:?}");
        }
    }

    #[test]
    fn a_plugin_that_withdraws_its_gpus_is_not_absent() {
        let facts = Facts {
            ready: "True".into(),
            capacity: Plugged { gpus: Some(8), parts: 0 },
            allocatable: Plugged { gpus: Some(0), parts: 0 },
            ..Facts::default()
        };
        assert_eq!(word(&facts, WANTED), "GpuAllocatableShort");
    }
}
