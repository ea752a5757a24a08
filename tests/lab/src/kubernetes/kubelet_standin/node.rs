//! The Node object as kubelet writes it: identity, resources, conditions. Pure, but for [`Machine::read`].

use std::path::Path;

use serde_json::{Map, Value, json};

use super::cni;
use super::gpus::Offer;
use super::settings::{Settings, under};

const GPU: &str = contract::names::RESOURCE_GPU;
const KIB_PER_GIB: u64 = 1024 * 1024;

/// What kubelet reads of the machine it runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) cpus: u64,
    pub(super) memory_kib: u64,
    pub(super) boot_id: String,
    pub(super) kernel: String,
    pub(super) os_image: String,
}

impl Machine {
    /// Reads the node's files; what a process node has none of is derived from its instance type.
    pub(super) fn read(root: &Path, instance_type: &str) -> Self {
        let text = |path: &str| std::fs::read_to_string(under(root, path)).unwrap_or_default();
        let (cpus, gib) = size_of(instance_type);
        let listed = text("/proc/cpuinfo").lines().filter(|l| l.starts_with("processor")).count();
        let release = text("/etc/os-release");
        let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        Self {
            cpus: u64::try_from(listed).ok().filter(|listed| *listed > 0).unwrap_or(cpus),
            memory_kib: total_memory(&text("/proc/meminfo")).unwrap_or(gib * KIB_PER_GIB),
            boot_id: text("/proc/sys/kernel/random/boot_id").trim().to_owned(),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            os_image: name.unwrap_or_default().trim_matches('"').to_owned(),
        }
    }
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// vCPUs and GiB by the size in an instance type's name, at the common four GiB a vCPU.
fn size_of(instance_type: &str) -> (u64, u64) {
    let size = instance_type.split('.').nth(1).unwrap_or_default();
    let cpus = match size {
        "nano" | "micro" | "small" | "medium" | "large" => 2,
        "xlarge" => 4,
        other => {
            other.strip_suffix("xlarge").and_then(|n| n.parse().ok()).map_or(2, |n: u64| n * 4)
        }
    };
    (cpus, cpus * 4)
}

/// What a status says, besides the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) address: &'a str,
    pub(super) network_ready: bool,
    /// What the device plugin offers; none: there has never been one.
    pub(super) gpus: Option<&'a Offer>,
}

/// The Node object to register with.
pub(super) fn object(settings: &Settings, machine: &Machine, facts: Facts<'_>, now: &str) -> Value {
    let mut labels: Map<String, Value> =
        settings.labels.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    let own = [
        ("kubernetes.io/hostname", settings.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", "amd64"),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", "amd64"),
    ];
    for (label, value) in own {
        labels.insert(label.to_owned(), value.into());
    }
    let mut node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": settings.node_name, "labels": labels},
        "spec": {},
        "status": status(settings, machine, facts, &[], now),
    });
    if !settings.taints.is_empty() {
        node["spec"]["taints"] = settings.taints.clone().into();
    }
    if let Some(provider) = &settings.provider_id {
        node["spec"]["providerID"] = provider.clone().into();
    }
    node
}

/// The status, with the transition times of `previous` kept where nothing has changed.
pub(super) fn status(
    settings: &Settings,
    machine: &Machine,
    facts: Facts<'_>,
    previous: &[Value],
    now: &str,
) -> Value {
    let (capacity, allocatable) = resources(settings, machine, facts.gpus);
    json!({
        "capacity": capacity,
        "allocatable": allocatable,
        "conditions": conditions(facts.network_ready, previous, now),
        "addresses": [
            {"type": "InternalIP", "address": facts.address},
            {"type": "InternalDNS", "address": settings.node_name},
            {"type": "Hostname", "address": settings.node_name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "machineID": machine.boot_id.replace('-', ""),
            "systemUUID": machine.boot_id,
            "bootID": machine.boot_id,
            "kernelVersion": machine.kernel,
            "osImage": machine.os_image,
            "containerRuntimeVersion": "containerd://2.1.5-standin",
            "kubeletVersion": settings.version,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": "amd64",
        },
    })
}

fn resources(settings: &Settings, machine: &Machine, gpus: Option<&Offer>) -> (Value, Value) {
    let reserved = |name: &str| settings.reserved.get(name).map(String::as_str).unwrap_or("0");
    let cpu_millis = machine.cpus * 1000;
    let free_cpu = cpu_millis.saturating_sub(millis(reserved("cpu")));
    // 100 MiB: evictionHard's memory.available.
    let kept = mebibytes(reserved("memory")) + 100;
    let free_memory = machine.memory_kib.saturating_sub(kept * 1024);
    let mut capacity = json!({"cpu": machine.cpus.to_string(),
        "memory": format!("{}Ki", machine.memory_kib), "ephemeral-storage": "83873772Ki",
        "hugepages-1Gi": "0", "hugepages-2Mi": "0", "pods": settings.max_pods.to_string()});
    let mut allocatable = json!({"cpu": format!("{free_cpu}m"),
        "memory": format!("{free_memory}Ki"), "ephemeral-storage": "76224326324",
        "hugepages-1Gi": "0", "hugepages-2Mi": "0", "pods": settings.max_pods.to_string()});
    if let Some(gpus) = gpus {
        capacity[GPU] = gpus.capacity.to_string().into();
        allocatable[GPU] = gpus.allocatable.to_string().into();
        for (profile, count) in &gpus.parts {
            let name = format!("{}{profile}", contract::names::RESOURCE_MIG_PREFIX);
            // A plugin that is gone leaves the resource, with nothing of it.
            capacity[name.as_str()] = count.to_string().into();
            allocatable[name.as_str()] = count.to_string().into();
        }
    }
    (capacity, allocatable)
}

fn millis(quantity: &str) -> u64 {
    match quantity.strip_suffix('m') {
        Some(millis) => millis.parse().unwrap_or(0),
        None => quantity.parse::<u64>().unwrap_or(0) * 1000,
    }
}

fn mebibytes(quantity: &str) -> u64 {
    let scaled = |suffix: &str, factor: u64| {
        quantity.strip_suffix(suffix).and_then(|n| n.parse::<u64>().ok()).map(|n| n * factor)
    };
    scaled("Mi", 1).or_else(|| scaled("Gi", 1024)).unwrap_or(0)
}

/// Kubelet's four conditions, in its words.
fn conditions(network_ready: bool, previous: &[Value], now: &str) -> Vec<Value> {
    let ready = if network_ready {
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status")
    } else {
        ("Ready", "False", "KubeletNotReady", cni::NOT_READY)
    };
    let wanted = [
        (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ready,
    ];
    let build = |(kind, status, reason, message): (&str, &str, &str, &str)| {
        let before = previous.iter().find(|condition| condition["type"] == kind);
        let since = before
            .filter(|before| before["status"] == status)
            .and_then(|before| before["lastTransitionTime"].as_str())
            .unwrap_or(now);
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": since})
    };
    wanted.into_iter().map(build).collect()
}

/// A status without what changes with every heartbeat: what tells whether there is news.
pub(super) fn without_heartbeat(status: &Value) -> Value {
    let mut status = status.clone();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        if let Some(fields) = condition.as_object_mut() {
            fields.remove("lastHeartbeatTime");
            fields.remove("lastTransitionTime");
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::settings::Access;
    use super::*;

    fn settings() -> Settings {
        Settings {
            node_name: "a".into(),
            node_ip: None,
            labels: BTreeMap::from([("node-type".into(), "gpu".into())]),
            taints: vec![json!({"key": "nvidia.com/gpu", "effect": "NoSchedule"})],
            provider_id: Some("aws:///us-east-1a/i-1".into()),
            max_pods: 100,
            reserved: BTreeMap::from([
                ("cpu".into(), "310m".into()),
                ("memory".into(), "1355Mi".into()),
            ]),
            version: "v1.34.2-eks-1".into(),
            access: Access {
                server: String::new(),
                ca_pem: String::new(),
                cluster: String::new(),
                region: String::new(),
            },
        }
    }

    fn machine() -> Machine {
        Machine {
            cpus: 192,
            memory_kib: 2048 * KIB_PER_GIB,
            boot_id: "b".into(),
            kernel: "6.12".into(),
            os_image: "Amazon Linux 2023".into(),
        }
    }

    fn facts(network_ready: bool, gpus: Option<&Offer>) -> Facts<'_> {
        Facts { address: "10.0.0.1", network_ready, gpus }
    }

    #[test]
    fn a_node_registers_with_labels_taints_and_provider() {
        let node = object(&settings(), &machine(), facts(false, None), "t0");
        assert_eq!(node["metadata"]["labels"]["node-type"], "gpu");
        assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "a");
        assert_eq!(node["spec"]["providerID"], "aws:///us-east-1a/i-1");
        assert_eq!(node["spec"]["taints"][0]["key"], "nvidia.com/gpu");
        let ready = &node["status"]["conditions"][3];
        assert_eq!(ready["reason"], "KubeletNotReady");
        assert!(ready["message"].as_str().unwrap().ends_with("cni plugin not initialized"));
        assert_eq!(node["status"]["capacity"].get(GPU), None);
    }

    #[test]
    fn resources_are_what_is_left_after_the_reserve() {
        let offer = Offer::whole(8, 7);
        let status = status(&settings(), &machine(), facts(true, Some(&offer)), &[], "t0");
        assert_eq!(status["allocatable"]["cpu"], "191690m");
        assert_eq!(status["allocatable"]["pods"], "100");
        assert_eq!(status["capacity"][GPU], "8");
        assert_eq!(status["allocatable"][GPU], "7");
    }

    #[test]
    fn a_transition_time_moves_only_with_its_status() {
        let before = conditions(false, &[], "t0");
        let same = conditions(false, &before, "t1");
        assert_eq!(same[3]["lastTransitionTime"], "t0");
        assert_eq!(same[3]["lastHeartbeatTime"], "t1");
        let changed = conditions(true, &same, "t2");
        assert_eq!(changed[3]["lastTransitionTime"], "t2");
        assert_eq!(changed[0]["lastTransitionTime"], "t0");
        let (old, new) = (json!({"conditions": before}), json!({"conditions": same}));
        assert_eq!(without_heartbeat(&old), without_heartbeat(&new));
    }

    #[test]
    fn sizes_follow_the_instance_types_name() {
        for (name, cpus) in [("p5.48xlarge", 192), ("m6i.large", 2), ("g5.xlarge", 4), ("x", 2)] {
            assert_eq!(size_of(name).0, cpus, "{name}");
        }
    }
}
