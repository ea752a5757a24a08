//! What the stand-in must know of AWS: who signed a token, which cluster exists, which instances run.
//!
//! [`World`] is that boundary. [`Emulator`] asks the AWS emulator's control API; tests bring their
//! own. [`Watcher`] keeps a recent observation, so that a revoked access entry is seen within
//! [`FRESH_FOR`] and a busy API server does not ask for every request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// How old an observation may be before it is made again.
pub(super) const FRESH_FOR: Duration = Duration::from_millis(700);
/// How long the emulator may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a held call is kept at most, and a little more: `faults.py` says a minute.
const HELD_WITHIN: Duration = Duration::from_secs(70);

/// A future that is boxed, so that [`World`] can be a trait object.
pub(super) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, WorldError>> + Send + 'a>>;

/// Why the world did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// The emulator could not be asked.
    #[error("could not ask the AWS emulator for `{what}`: {why}")]
    Unreachable {
        /// The path of its control API.
        what: &'static str,
        /// What happened.
        why: String,
    },
    /// STS does not accept the signature, or the credentials are expired or unknown.
    #[error("the presigned request was refused: {0}")]
    Refused(String),
}

/// Who signed a request, as STS answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Caller {
    pub(super) arn: String,
    pub(super) account: String,
    #[serde(default)]
    pub(super) user_id: String,
}

/// An access entry of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AccessEntry {
    pub(super) principal_arn: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) username: Option<String>,
    pub(super) groups: Option<Vec<String>>,
    pub(super) policies: Vec<Value>,
}

/// An add-on of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Addon {
    pub(super) name: String,
    pub(super) version: Option<String>,
    pub(super) status: String,
}

/// The cluster that this API server belongs to.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Cluster {
    pub(super) name: String,
    pub(super) status: String,
    pub(super) version: Option<String>,
    /// When it was made: a cluster of the same name may be another.
    pub(super) created_at: String,
    pub(super) service_cidr: Option<String>,
    pub(super) addons: Vec<Addon>,
    pub(super) access_entries: Vec<AccessEntry>,
}

impl Cluster {
    /// Whether its API server answers.
    pub(super) fn is_served(&self) -> bool {
        matches!(self.status.as_str(), "ACTIVE" | "UPDATING")
    }
}

/// An instance, as far as nodes need it. A terminated one has lost its network: nulls are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Instance {
    pub(super) instance_id: String,
    #[serde(rename = "type")]
    pub(super) instance_type: String,
    pub(super) state: String,
    #[serde(deserialize_with = "text_or_null")]
    pub(super) zone: String,
    #[serde(deserialize_with = "text_or_null")]
    pub(super) zone_id: String,
    #[serde(deserialize_with = "text_or_null")]
    pub(super) private_ip: String,
    #[serde(deserialize_with = "text_or_null")]
    pub(super) private_dns_name: String,
}

fn text_or_null<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(source)?.unwrap_or_default())
}

/// Clusters and instances at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Observation {
    pub(super) cluster: Option<Cluster>,
    pub(super) instances: Vec<Instance>,
}

/// A change of an object that somebody from outside the cluster asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Write {
    /// `PatchDaemonSet`.
    pub(super) op: String,
    /// Name of the object.
    pub(super) resource: String,
    /// ARN of who asks.
    pub(super) caller: String,
}

/// What the emulator's fault rules do to a change: none of them, or one of `faults.py`'s actions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Strike {
    /// Its number in the journal.
    #[serde(rename = "n")]
    pub(super) number: u64,
    /// `throttle`, `error`, `reset`, `reset_after`, `hold`.
    pub(super) action: Option<String>,
}

impl Strike {
    /// Whether this is what is done.
    pub(super) fn is(&self, action: &str) -> bool {
        self.action.as_deref() == Some(action)
    }
}

/// What must be known of AWS.
pub(super) trait World: Send + Sync + std::fmt::Debug {
    /// Asks STS who signed this presigned request, with this value of `x-k8s-aws-id`.
    fn whoami<'a>(&'a self, url: &'a str, cluster: &'a str) -> Answer<'a, Caller>;
    /// Looks at clusters and instances.
    fn observe(&self) -> Answer<'_, Observation>;
    /// Puts a change into the journal of calls; what the fault rules do to it.
    fn strike<'a>(&'a self, _: &'a Write) -> Answer<'a, Strike> {
        Box::pin(std::future::ready(Ok(Strike::default())))
    }
    /// Keeps a change's answer back until it is let go.
    fn hold(&self, _: u64) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The AWS emulator's control API.
#[derive(Debug, Clone)]
pub(super) struct Emulator {
    base: String,
    client: reqwest::Client,
}

impl Emulator {
    pub(super) fn new(base: &str) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_WITHIN).build()?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), client })
    }

    async fn get<T: serde::de::DeserializeOwned>(
        &self,
        what: &'static str,
    ) -> Result<T, WorldError> {
        let unreachable = |error: reqwest::Error| WorldError::Unreachable {
            what,
            why: contract::ErrorChain(&error).to_string(),
        };
        let response = self.client.get(format!("{}{what}", self.base)).send().await;
        let response = response.and_then(reqwest::Response::error_for_status);
        response.map_err(unreachable)?.json().await.map_err(unreachable)
    }

    async fn post<T: serde::de::DeserializeOwned>(
        &self,
        what: &'static str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, WorldError> {
        let unreachable = |error: reqwest::Error| WorldError::Unreachable {
            what,
            why: contract::ErrorChain(&error).to_string(),
        };
        let request = self.client.post(format!("{}{what}", self.base)).json(body).timeout(within);
        let response = request.send().await.and_then(reqwest::Response::error_for_status);
        response.map_err(unreachable)?.json().await.map_err(unreachable)
    }

    async fn ask_whoami(&self, url: &str, cluster: &str) -> Result<Caller, WorldError> {
        let what = "/_control/whoami";
        let unreachable = |error: reqwest::Error| WorldError::Unreachable {
            what,
            why: contract::ErrorChain(&error).to_string(),
        };
        let question = json!({"url": url, "headers": {"x-k8s-aws-id": cluster}});
        let request = self.client.post(format!("{}{what}", self.base)).json(&question);
        let response = request.send().await.map_err(unreachable)?;
        if response.status() == reqwest::StatusCode::FORBIDDEN {
            let body: Value = response.json().await.unwrap_or_default();
            return Err(WorldError::Refused(body["error"].as_str().unwrap_or_default().to_owned()));
        }
        let response = response.error_for_status().map_err(unreachable)?;
        response.json().await.map_err(unreachable)
    }
}

impl World for Emulator {
    fn whoami<'a>(&'a self, url: &'a str, cluster: &'a str) -> Answer<'a, Caller> {
        Box::pin(self.ask_whoami(url, cluster))
    }

    fn observe(&self) -> Answer<'_, Observation> {
        #[derive(Deserialize)]
        struct Eks {
            clusters: Vec<Cluster>,
        }
        Box::pin(async {
            let eks: Eks = self.get("/_control/eks").await?;
            let instances = self.get("/_control/instances").await?;
            Ok(Observation { cluster: eks.clusters.into_iter().next(), instances })
        })
    }

    fn strike<'a>(&'a self, write: &'a Write) -> Answer<'a, Strike> {
        Box::pin(self.post("/_control/kubernetes", write, ANSWER_WITHIN))
    }

    fn hold(&self, number: u64) -> Answer<'_, ()> {
        Box::pin(async move {
            let answer: Result<Value, _> =
                self.post("/_control/held", &json!({"n": number}), HELD_WITHIN).await;
            answer.map(drop)
        })
    }
}

/// Keeps the latest observation.
#[derive(Debug)]
pub(super) struct Watcher {
    world: Arc<dyn World>,
    latest: Mutex<Option<(Instant, Arc<Observation>)>>,
}

impl Watcher {
    pub(super) fn new(world: Arc<dyn World>) -> Self {
        Self { world, latest: Mutex::new(None) }
    }

    pub(super) fn world(&self) -> &dyn World {
        self.world.as_ref()
    }

    /// An observation that is at most [`FRESH_FOR`] old. The lock is held while it is made, so that
    /// many requests at once ask once.
    pub(super) async fn observation(&self) -> Result<Arc<Observation>, WorldError> {
        let mut latest = self.latest.lock().await;
        if let Some((made, observation)) = latest.as_ref()
            && made.elapsed() < FRESH_FOR
        {
            return Ok(Arc::clone(observation));
        }
        let observation = Arc::new(self.world.observe().await?);
        *latest = Some((Instant::now(), Arc::clone(&observation)));
        Ok(observation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_emulator_says_is_read_nulls_and_strange_fields_included() {
        let terminated = json!({"instanceId": "i-1", "type": "p5.48xlarge", "state": "terminated",
            "zone": "us-east-1a", "zoneId": null, "privateIp": null, "privateDnsName": null,
            "tags": {}});
        let instance: Instance = serde_json::from_value(terminated).unwrap();
        assert_eq!((instance.state.as_str(), instance.zone_id.as_str()), ("terminated", ""));
        let cluster = json!({"name": "prod", "status": "UPDATING", "vpcId": "vpc-1", "addons": [
            {"name": "vpc-cni", "version": null, "status": "CREATING"}], "accessEntries": [
            {"principalArn": "arn", "type": "EC2_LINUX", "username": null, "groups": null}]});
        let cluster: Cluster = serde_json::from_value(cluster).unwrap();
        assert!(cluster.is_served());
        assert_eq!(cluster.access_entries[0].kind, "EC2_LINUX");
        for status in ["CREATING", "DELETING", "FAILED", ""] {
            assert!(
                !Cluster { status: status.into(), ..Cluster::default() }.is_served(),
                "{status}"
            );
        }
    }
}
