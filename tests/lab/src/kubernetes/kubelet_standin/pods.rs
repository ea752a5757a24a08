//! The pods bound to this node: heard of through a watch, "run" by time, reported as kubelet reports.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::api::{Api, CallError};
use super::klog;

const RELIST_AFTER: Duration = Duration::from_secs(1);

/// The pods bound to the node, by uid.
pub(super) type Pods = BTreeMap<String, Value>;

/// What a pod is, as far as the stand-in plays its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The VPC CNI's daemon.
    Network,
    /// A device plugin that offers GPUs.
    DevicePlugin,
    /// Anything else just runs.
    Other,
}

impl Role {
    /// Told by the image, which is what would do the work.
    pub(super) fn of(pod: &Value) -> Self {
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let images: Vec<&str> = containers.filter_map(|c| c["image"].as_str()).collect();
        if images.iter().any(|image| image.contains("amazon-k8s-cni")) {
            Self::Network
        } else if images.iter().any(|image| image.contains("k8s-device-plugin")) {
            Self::DevicePlugin
        } else {
            Self::Other
        }
    }
}

/// How far a pod has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Bound, not yet started; why, where kubelet says why.
    Waiting { reason: &'static str, message: String },
    /// Its containers run.
    Running { ready: bool },
    /// Its container ends as soon as it starts.
    Crashing { message: String },
}

/// The state of a pod. Pure.
pub(super) fn state(
    pod: &Value,
    age: Duration,
    start_after: Duration,
    network_ready: bool,
    role_ready: &Result<bool, String>,
) -> State {
    let host_network = pod["spec"]["hostNetwork"] == true;
    if !host_network && !network_ready {
        return State::Waiting {
            reason: "ContainerCreating",
            message: "network is not ready: container runtime network not ready".to_owned(),
        };
    }
    if age < start_after {
        return State::Waiting { reason: "ContainerCreating", message: String::new() };
    }
    match role_ready {
        Ok(ready) => State::Running { ready: *ready },
        Err(message) => State::Crashing { message: message.clone() },
    }
}

/// The status that kubelet reports for a state; `previous` keeps what does not change.
pub(super) fn status(
    pod: &Value,
    state: &State,
    address: &str,
    previous: &Value,
    now: &str,
) -> Value {
    let ready = matches!(state, State::Running { ready: true });
    let started = !matches!(state, State::Waiting { .. });
    let since = |kind: &str, status: &str| {
        let conditions = previous["conditions"].as_array().into_iter().flatten();
        let before = conditions.into_iter().find(|condition| condition["type"] == kind);
        before
            .filter(|before| before["status"] == status)
            .map_or_else(|| now.into(), |before| before["lastTransitionTime"].clone())
    };
    let condition = |kind: &str, holds: bool| {
        let status = if holds { "True" } else { "False" };
        let mut condition =
            json!({"type": kind, "status": status, "lastTransitionTime": since(kind, status)});
        if !holds {
            condition["reason"] = "ContainersNotReady".into();
            condition["message"] = "containers with unready status".into();
        }
        condition
    };
    let mut status = json!({
        "phase": if started { "Running" } else { "Pending" },
        "hostIP": address,
        "podIP": if started { address.into() } else { Value::Null },
        "startTime": previous.get("startTime").cloned().unwrap_or_else(|| now.into()),
        "conditions": [
            condition("PodReadyToStartContainers", started),
            condition("Initialized", true),
            condition("Ready", ready),
            condition("ContainersReady", ready),
            condition("PodScheduled", true),
        ],
        "containerStatuses": containers(pod, state, ready),
    });
    if status["podIP"].is_null()
        && let Some(fields) = status.as_object_mut()
    {
        fields.remove("podIP");
    }
    status
}

fn containers(pod: &Value, state: &State, ready: bool) -> Vec<Value> {
    let phase = match state {
        State::Waiting { reason, message } => {
            json!({"waiting": {"reason": reason, "message": message}})
        }
        State::Running { .. } => json!({"running": {}}),
        State::Crashing { message } => json!({"waiting": {"reason": "CrashLoopBackOff",
            "message": format!("back-off restarting failed container: {message}")}}),
    };
    let all = pod["spec"]["containers"].as_array().into_iter().flatten();
    all.map(|container| {
        json!({"name": container["name"], "image": container["image"], "imageID": "",
            "ready": ready, "started": matches!(state, State::Running { .. }),
            "restartCount": i32::from(matches!(state, State::Crashing { .. })), "state": phase})
    })
    .collect()
}

/// Follows the pods of this node for ever: a list, then a watch, and again when that ends.
pub(super) async fn follow(api: Api, node: String, sender: watch::Sender<Pods>) -> Infallible {
    loop {
        let followed = follow_once(&api, &node, &sender).await;
        if let Err(error) = followed {
            let error = error.to_string();
            klog::error("reflector.go:205", "Failed to watch", &[("err", &error), ("type", "Pod")]);
        }
        tokio::time::sleep(RELIST_AFTER).await;
    }
}

async fn follow_once(api: &Api, node: &str, sender: &watch::Sender<Pods>) -> Result<(), CallError> {
    let selector = format!("fieldSelector=spec.nodeName%3D{node}");
    let list = api.get(&format!("/api/v1/pods?{selector}")).await?;
    let items = list["items"].as_array().into_iter().flatten();
    sender.send_replace(items.map(|pod| (uid(pod), pod.clone())).collect());
    let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let path = format!("/api/v1/pods?watch=true&resourceVersion={version}&{selector}");
    let mut answer = api.watch(&path).await?;
    let mut unread = Vec::new();
    loop {
        let chunk = answer.chunk().await;
        let chunk = chunk
            .map_err(|error| CallError::Transport(contract::ErrorChain(&error).to_string()))?;
        let Some(chunk) = chunk else { return Ok(()) };
        unread.extend_from_slice(&chunk);
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).unwrap_or_default();
            if event["type"] == "ERROR" {
                return Ok(());
            }
            sender.send_modify(|pods| take(pods, &event));
        }
    }
}

/// Applies one watch event. Pure.
fn take(pods: &mut Pods, event: &Value) {
    let pod = &event["object"];
    if event["type"] == "DELETED" {
        pods.remove(&uid(pod));
    } else {
        pods.insert(uid(pod), pod.clone());
    }
}

fn uid(pod: &Value) -> String {
    pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

/// What the stand-in remembers of a pod.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) since: Instant,
    pub(super) reported: Value,
    pub(super) state: Option<State>,
}

impl Track {
    pub(super) fn new(pod: &Value, now: Instant) -> Self {
        Self { since: now, reported: pod["status"].clone(), state: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_millis(300);
    const OLD: Duration = Duration::from_secs(1);

    fn pod(host_network: bool, image: &str) -> Value {
        json!({"metadata": {"uid": "u"}, "spec": {"hostNetwork": host_network,
            "containers": [{"name": "c", "image": image}]}})
    }

    #[test]
    fn a_pod_waits_for_its_start_and_for_the_network_unless_it_brings_its_own() {
        let (host, inner) = (pod(true, "x"), pod(false, "x"));
        let waiting = |state: State| matches!(state, State::Waiting { .. });
        assert!(waiting(state(&host, Duration::ZERO, START, true, &Ok(true))));
        assert!(waiting(state(&inner, OLD, START, false, &Ok(true))));
        assert_eq!(state(&host, OLD, START, false, &Ok(true)), State::Running { ready: true });
        assert_eq!(state(&inner, OLD, START, true, &Ok(false)), State::Running { ready: false });
        let crash = state(&inner, OLD, START, true, &Err("NVML".into()));
        assert_eq!(crash, State::Crashing { message: "NVML".into() });
    }

    #[test]
    fn roles_are_told_by_image() {
        let table = [
            ("602401143452.dkr.ecr.us-east-1.amazonaws.com/amazon-k8s-cni:v1", Role::Network),
            ("nvcr.io/nvidia/k8s-device-plugin:v0.18.0", Role::DevicePlugin),
            ("eks/kube-proxy:v1", Role::Other),
        ];
        for (image, role) in table {
            assert_eq!(Role::of(&pod(true, image)), role, "{image}");
        }
    }

    #[test]
    fn a_status_says_what_runs_and_since_when() {
        let pod = pod(true, "x");
        let first = status(&pod, &State::Running { ready: true }, "10.0.0.1", &json!({}), "t0");
        assert_eq!(first["phase"], "Running");
        let ready = |status: &Value| status["conditions"][2].clone();
        assert_eq!(ready(&first)["status"], "True");
        let later = status(&pod, &State::Running { ready: true }, "10.0.0.1", &first, "t1");
        assert_eq!(first, later, "nothing has changed");
        let crash = State::Crashing { message: "NVML".into() };
        let crashed = status(&pod, &crash, "10.0.0.1", &first, "t2");
        assert_eq!(ready(&crashed)["status"], "False");
        assert_eq!(
            crashed["containerStatuses"][0]["state"]["waiting"]["reason"],
            "CrashLoopBackOff"
        );
    }

    #[test]
    fn events_keep_the_set_of_pods() {
        let mut pods = Pods::new();
        take(&mut pods, &json!({"type": "ADDED", "object": pod(true, "x")}));
        assert_eq!(pods.len(), 1);
        take(&mut pods, &json!({"type": "DELETED", "object": pod(true, "x")}));
        assert!(pods.is_empty());
    }
}
