//! The stand-in as a whole: a served cluster, asked over TLS with real tokens.
//!
//! Only AWS is a double here ([`TestWorld`]): it knows some credentials, and verifies a presigned
//! request by signing it again.

mod access;
mod clients;
mod nodes;
mod objects;
mod watches;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use reqwest::Method;
use serde_json::{Value, json};

use super::workloads::Timing;
use super::{Handle, StandinConfig, bind};
use crate::kubernetes::world::{Answer, Caller, Instance, Observation, World, WorldError};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// A node is silent after this long.
const GRACE: Duration = Duration::from_millis(900);

/// An AWS with a cluster `prod`, an operator, and two nodes `i-a` and `i-b`.
#[derive(Debug)]
struct TestWorld {
    observation: Mutex<Observation>,
    callers: BTreeMap<&'static str, Caller>,
    /// How many tokens STS was asked about.
    judged: AtomicUsize,
}

fn credentials(key: &str) -> Credentials {
    Credentials::new(key, format!("secret of {key}"), Some("session".to_owned()), None, "test")
}

impl TestWorld {
    fn new() -> Self {
        let cluster = json!({"name": "prod", "status": "ACTIVE", "version": "1.34", "addons": [],
            "accessEntries": [
                {"principalArn": "arn:aws:iam::1:role/nodes", "type": "EC2_LINUX"},
                {"principalArn": "arn:aws:iam::1:user/operator", "type": "STANDARD", "policies": [
                    "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"]}]});
        let instance = |id: &str, name: &str| Instance {
            instance_id: id.into(),
            instance_type: "p5.48xlarge".into(),
            state: "running".into(),
            zone: "us-east-1a".into(),
            private_dns_name: name.into(),
            ..Instance::default()
        };
        let observation = Observation {
            cluster: serde_json::from_value(cluster).unwrap(),
            instances: vec![instance("i-a", "a"), instance("i-b", "b")],
        };
        let caller = |arn: &str| Caller {
            arn: arn.into(),
            account: "1".into(),
            user_id: "AROAEXAMPLE:x".into(),
        };
        let callers = BTreeMap::from([
            ("OPERATOR", caller("arn:aws:iam::1:user/operator")),
            ("NODEA", caller("arn:aws:sts::1:assumed-role/nodes/i-a")),
            ("NODEB", caller("arn:aws:sts::1:assumed-role/nodes/i-b")),
            ("STRANGER", caller("arn:aws:iam::1:user/stranger")),
        ]);
        Self { observation: Mutex::new(observation), callers, judged: AtomicUsize::new(0) }
    }

    fn change(&self, change: impl FnOnce(&mut Observation)) {
        change(&mut self.observation.lock().unwrap());
    }

    fn judge(&self, url: &str, cluster: &str) -> Result<Caller, WorldError> {
        self.judged.fetch_add(1, Ordering::Relaxed);
        let refuse = || WorldError::Refused("SignatureDoesNotMatch".into());
        let parsed = url::Url::parse(url).unwrap();
        let query: BTreeMap<_, _> = parsed.query_pairs().into_owned().collect();
        let key = query["X-Amz-Credential"].split('/').next().unwrap();
        let (key, caller) = self.callers.get_key_value(key).ok_or_else(refuse)?;
        let date = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", &query["X-Amz-Date"]).unwrap();
        let time = date.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().into();
        let again = eks_token::mint(&credentials(key), "us-east-1", cluster, time).unwrap();
        if decoded(again.expose())
            .contains(&format!("X-Amz-Signature={}", query["X-Amz-Signature"]))
        {
            Ok(caller.clone())
        } else {
            Err(refuse())
        }
    }
}

fn decoded(token: &str) -> String {
    use base64::Engine as _;
    let encoded = token.strip_prefix("k8s-aws-v1.").unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn encoded(url: &str) -> String {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(url);
    format!("k8s-aws-v1.{encoded}")
}

impl World for TestWorld {
    fn whoami<'a>(&'a self, url: &'a str, cluster: &'a str) -> Answer<'a, Caller> {
        Box::pin(std::future::ready(self.judge(url, cluster)))
    }

    fn observe(&self) -> Answer<'_, Observation> {
        Box::pin(std::future::ready(Ok(self.observation.lock().unwrap().clone())))
    }
}

/// A served cluster.
struct Served {
    world: Arc<TestWorld>,
    handle: Handle,
    http: reqwest::Client,
    _dir: tempfile::TempDir,
}

async fn served() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let config = StandinConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        dir: dir.path().to_owned(),
        region: "us-east-1".into(),
    };
    let bound = bind(config).await.unwrap();
    assert_eq!(std::fs::read_to_string(bound.ca_path()).unwrap(), bound.ca_pem());
    let world = Arc::new(TestWorld::new());
    let timing = Timing { pass: Duration::from_millis(100), grace: GRACE };
    let handle = bound.serve_world(Arc::clone(&world) as Arc<dyn World>, timing);
    let ca = reqwest::Certificate::from_pem(handle.ca_pem().as_bytes()).unwrap();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().unwrap();
    let served = Served { world, handle, http, _dir: dir };
    // The first pass makes the namespaces.
    let operator = served.user("OPERATOR");
    until(|| async { operator.get("/api/v1/namespaces/kube-system").await.0 == 200 }).await;
    served
}

fn minted(key: &str, cluster: &str, age: Duration) -> String {
    let at = SystemTime::now() - age;
    eks_token::mint(&credentials(key), "us-east-1", cluster, at).unwrap().expose().to_owned()
}

impl Served {
    fn with_token(&self, token: Option<String>) -> Client {
        Client { base: self.handle.endpoint().to_owned(), http: self.http.clone(), token }
    }

    fn user(&self, key: &str) -> Client {
        self.with_token(Some(minted(key, "prod", Duration::ZERO)))
    }
}

/// Somebody who asks.
#[derive(Clone)]
struct Client {
    base: String,
    http: reqwest::Client,
    token: Option<String>,
}

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

impl Client {
    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base)).timeout(PATIENCE);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn call(&self, method: Method, path: &str, body: Option<(&str, Value)>) -> (u16, Value) {
        let mut request = self.request(method, path);
        if let Some((content_type, body)) = body {
            request = request.header("content-type", content_type).body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let code = response.status().as_u16();
        (code, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::POST, path, Some(("application/json", body))).await
    }

    async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::PUT, path, Some(("application/json", body))).await
    }

    async fn patch(&self, path: &str, content_type: &str, body: Value) -> (u16, Value) {
        self.call(Method::PATCH, path, Some((content_type, body))).await
    }

    async fn delete(&self, path: &str) -> (u16, Value) {
        self.call(Method::DELETE, path, None).await
    }
}

/// Waits until a condition holds, or fails.
async fn until<F, Fut>(mut holds: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "it did not come about in {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

fn a_node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name,
        "labels": {"node-type": "gpu", "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}},
        "spec": {"providerID": format!("aws:///us-east-1a/i-{name}"),
            "taints": [{"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}]},
        "status": {"conditions": [ready("False")]}})
}

fn ready(status: &str) -> Value {
    json!({"type": "Ready", "status": status, "reason": "x", "message": "x"})
}

/// Lets a node beat: a status with a heartbeat that is new.
async fn beat(client: &Client, name: &str, status: &str) {
    let mut condition = ready(status);
    condition["lastHeartbeatTime"] = jiff::Timestamp::now().to_string().into();
    let patch = json!({"status": {"conditions": [condition]}});
    let (code, answer) =
        client.patch(&format!("/api/v1/nodes/{name}/status"), STRATEGIC, patch).await;
    assert_eq!(code, 200, "{answer}");
}

fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
}

fn taint_keys(node: &Value) -> Vec<String> {
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    taints.iter().map(|taint| taint["key"].as_str().unwrap().to_owned()).collect()
}
