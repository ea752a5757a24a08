//! DaemonSets, Deployments and pods as plain facts.

use ::kube::api::{Api, ListParams};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;

use super::connect::{Cluster, KubeError};

/// What a DaemonSet says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DaemonSetFacts {
    /// Nodes that should run its pod.
    pub desired: u32,
    /// Nodes whose pod is ready.
    pub ready: u32,
    /// Nodes whose pod is of the current template.
    pub updated: u32,
    /// Whether the counts are about the current specification.
    pub current: bool,
}

/// What a Deployment says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentFacts {
    /// Replicas asked for.
    pub desired: u32,
    /// Replicas that serve.
    pub available: u32,
    /// Whether the counts are about the current specification.
    pub current: bool,
}

/// What a pod says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodFacts {
    /// Name.
    pub name: String,
    /// Node that it is bound to; none while it waits for one.
    pub node: Option<String>,
    /// `Pending`, `Running`, …
    pub phase: String,
    /// Whether all its containers are ready.
    pub ready: bool,
    /// Why a container waits: `ImagePullBackOff`, `CrashLoopBackOff`, …
    pub waiting: Option<String>,
    /// Restarts of all its containers.
    pub restarts: u32,
}

impl Cluster {
    /// A DaemonSet; none when it does not exist.
    ///
    /// # Errors
    /// Where the way ended.
    pub async fn daemonset(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<DaemonSetFacts>, KubeError> {
        let set = self
            .call(&format!("read DaemonSet `{namespace}/{name}`"), async |client| {
                Api::<DaemonSet>::namespaced(client, namespace).get_opt(name).await
            })
            .await?;
        Ok(set.map(|set| {
            let status = set.status.unwrap_or_default();
            DaemonSetFacts {
                desired: count(status.desired_number_scheduled),
                ready: count(status.number_ready),
                updated: count(status.updated_number_scheduled.unwrap_or_default()),
                current: status.observed_generation >= set.metadata.generation,
            }
        }))
    }

    /// A Deployment; none when it does not exist.
    ///
    /// # Errors
    /// Where the way ended.
    pub async fn deployment(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<DeploymentFacts>, KubeError> {
        let deployment = self
            .call(&format!("read Deployment `{namespace}/{name}`"), async |client| {
                Api::<Deployment>::namespaced(client, namespace).get_opt(name).await
            })
            .await?;
        Ok(deployment.map(|deployment| {
            let status = deployment.status.unwrap_or_default();
            DeploymentFacts {
                // An absent replica count means one.
                desired: count(deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1)),
                available: count(status.available_replicas.unwrap_or_default()),
                current: status.observed_generation >= deployment.metadata.generation,
            }
        }))
    }

    /// The pods of a namespace that a label selector names, on one node or on all.
    ///
    /// # Errors
    /// Where the way ended.
    pub async fn pods(
        &self,
        namespace: &str,
        selector: &str,
        node: Option<&str>,
    ) -> Result<Vec<PodFacts>, KubeError> {
        let mut parameters = ListParams::default().labels(selector);
        parameters.field_selector = node.map(|node| format!("spec.nodeName={node}"));
        let pods = self
            .call(&format!("list the pods `{namespace}/{selector}`"), async |client| {
                Api::<Pod>::namespaced(client, namespace).list(&parameters).await
            })
            .await?;
        Ok(pods.items.into_iter().map(pod_facts).collect())
    }
}

fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn pod_facts(pod: Pod) -> PodFacts {
    let status = pod.status.unwrap_or_default();
    let containers = status.container_statuses.unwrap_or_default();
    PodFacts {
        name: pod.metadata.name.unwrap_or_default(),
        node: pod.spec.and_then(|spec| spec.node_name).filter(|name| !name.is_empty()),
        phase: status.phase.unwrap_or_default(),
        ready: status
            .conditions
            .unwrap_or_default()
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        waiting: containers
            .iter()
            .find_map(|c| c.state.as_ref()?.waiting.as_ref()?.reason.clone())
            .filter(|reason| reason != "ContainerCreating"),
        restarts: containers.iter().map(|c| count(c.restart_count)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_cannot_pull_says_so() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "aws-node-x"},
            "spec": {"nodeName": "ip-10-0-1-7.ec2.internal", "containers": []},
            "status": {"phase": "Pending",
                "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [{"name": "aws-node", "ready": false, "restartCount": 3,
                    "image": "", "imageID": "",
                    "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}
        }))
        .unwrap();
        assert_eq!(
            pod_facts(pod),
            PodFacts {
                name: "aws-node-x".into(),
                node: Some("ip-10-0-1-7.ec2.internal".into()),
                phase: "Pending".into(),
                ready: false,
                waiting: Some("ImagePullBackOff".into()),
                restarts: 3,
            }
        );
    }

    #[test]
    fn a_pod_that_just_starts_waits_for_nothing() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "x"}, "spec": {"containers": []},
            "status": {"containerStatuses": [{"name": "c", "ready": false, "restartCount": 0,
                "image": "", "imageID": "",
                "state": {"waiting": {"reason": "ContainerCreating"}}}]}
        }))
        .unwrap();
        let facts = pod_facts(pod);
        assert_eq!((facts.waiting, facts.node), (None, None));
    }
}
