//! The client: a bearer token made on the node, TLS with the cluster's CA, JSON.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use eks_token::Token;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::error::KubeError;
use super::kubeconfig;
use super::objects::{Condition, Event, Identity};
use crate::aws::RoleCredentials;
use crate::aws::imds::clock_ahead;
use crate::host::{Deadline, Root};

/// How long a token is used: EKS takes it for 15 minutes after its date.
const TOKEN_LIFE: Duration = Duration::from_secs(600);

/// How long a connection may take, and one request as a whole.
const CONNECT: Duration = Duration::from_secs(5);
const REQUEST: Duration = Duration::from_secs(10);

/// The cluster that a node belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its name, which the token is bound to.
    pub name: String,
    /// Its region.
    pub region: String,
    /// URL of its API server.
    pub endpoint: String,
    /// Its CA, PEM.
    pub ca_pem: Vec<u8>,
    /// The proxy that leads there, when the node's configuration names one.
    pub proxy: Option<String>,
}

/// A client of the cluster's API server.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    cluster: Cluster,
    credentials: RoleCredentials,
    token: tokio::sync::Mutex<Option<HeldToken>>,
    ahead: Mutex<Option<i64>>,
}

/// A token and when it is made anew, by a clock that nobody sets.
#[derive(Debug)]
struct HeldToken {
    token: Token,
    until: Instant,
}

impl Client {
    /// A client of `cluster` that trusts its CA and nothing else.
    ///
    /// # Errors
    /// When the CA is no certificate, or the proxy no URL.
    pub fn new(cluster: Cluster, credentials: RoleCredentials) -> Result<Self, KubeError> {
        let bad =
            |what, error: &reqwest::Error| KubeError::Cluster { what, why: error.to_string() };
        let ca = reqwest::Certificate::from_pem_bundle(&cluster.ca_pem);
        let ca = ca.map_err(|error| bad("CA", &error))?;
        if ca.is_empty() {
            return Err(KubeError::Cluster { what: "CA", why: "no certificate in it".into() });
        }
        let mut builder = reqwest::Client::builder()
            .tls_certs_only(ca)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT);
        if let Some(proxy) = &cluster.proxy {
            let proxy = reqwest::Proxy::https(proxy).map_err(|error| bad("proxy", &error))?;
            builder = builder.proxy(proxy);
        }
        let http = builder.build().map_err(|error| bad("CA", &error))?;
        Ok(Self {
            http,
            cluster,
            credentials,
            token: tokio::sync::Mutex::default(),
            ahead: Mutex::default(),
        })
    }

    /// A client of the cluster that the node's kubelet is configured for.
    ///
    /// # Errors
    /// When there is no kubeconfig yet, or it cannot be used.
    pub fn from_kubeconfig(root: &Root, credentials: RoleCredentials) -> Result<Self, KubeError> {
        let cluster = kubeconfig::cluster(root).map_err(|error| KubeError::Cluster {
            what: "kubeconfig",
            why: contract::ErrorChain(&error).to_string(),
        })?;
        Self::new(cluster, credentials)
    }

    /// The cluster.
    #[must_use]
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// By how many seconds the node's clock was ahead of the API server's at its last answer.
    #[must_use]
    pub fn clock_ahead(&self) -> Option<i64> {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who the API server thinks we are.
    ///
    /// # Errors
    /// As [`KubeError`] lists.
    pub async fn who_am_i(&self, deadline: Deadline) -> Result<Identity, KubeError> {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let answer = self.call(Method::POST, path, Some(("json", &review)), deadline).await?;
        serde_json::from_value(answer["status"]["userInfo"].clone())
            .map_err(|error| KubeError::Malformed(error.to_string()))
    }

    /// The API server's version, `v1.34.4-eks-2`.
    ///
    /// # Errors
    /// As [`KubeError`] lists.
    pub async fn version(&self, deadline: Deadline) -> Result<String, KubeError> {
        let answer = self.call(Method::GET, "/version", None, deadline).await?;
        let version = answer["gitVersion"].as_str();
        version.map(str::to_owned).ok_or_else(|| KubeError::Malformed("no gitVersion".into()))
    }

    /// A Node object; `None` when there is none of this name.
    ///
    /// # Errors
    /// As [`KubeError`] lists.
    pub async fn node(&self, name: &str, deadline: Deadline) -> Result<Option<Value>, KubeError> {
        self.get(&format!("/api/v1/nodes/{name}"), deadline).await
    }

    /// A DaemonSet of kube-system; `None` when there is none of this name.
    ///
    /// # Errors
    /// As [`KubeError`] lists; [`KubeError::Forbidden`] where the node's ClusterRole is missing.
    pub async fn daemonset(
        &self,
        name: &str,
        deadline: Deadline,
    ) -> Result<Option<Value>, KubeError> {
        self.get(&format!("/apis/apps/v1/namespaces/kube-system/daemonsets/{name}"), deadline).await
    }

    /// The ResourceSlices of a node; `None` where the cluster does not serve them (before 1.34).
    ///
    /// # Errors
    /// As [`KubeError`] lists; the node authorizer answers for the node's own alone.
    pub async fn resource_slices(
        &self,
        node: &str,
        deadline: Deadline,
    ) -> Result<Option<Vec<Value>>, KubeError> {
        let path =
            format!("/apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.nodeName%3D{node}");
        let list = self.get(&path, deadline).await?;
        Ok(list.map(|mut list| match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        }))
    }

    /// Sets one condition of a Node, as `manager`, leaving the others as they are.
    ///
    /// # Errors
    /// As [`KubeError`] lists.
    pub async fn set_node_condition(
        &self,
        node: &str,
        condition: &Condition,
        manager: &str,
        deadline: Deadline,
    ) -> Result<(), KubeError> {
        let patch = json!({"status": {"conditions": [condition]}});
        self.patch_node_status(node, &patch, manager, deadline).await
    }

    /// Takes one condition of a Node away.
    ///
    /// # Errors
    /// As [`KubeError`] lists.
    pub async fn remove_node_condition(
        &self,
        node: &str,
        kind: &str,
        manager: &str,
        deadline: Deadline,
    ) -> Result<(), KubeError> {
        let patch = json!({"status": {"conditions": [{"type": kind, "$patch": "delete"}]}});
        self.patch_node_status(node, &patch, manager, deadline).await
    }

    async fn patch_node_status(
        &self,
        node: &str,
        patch: &Value,
        manager: &str,
        deadline: Deadline,
    ) -> Result<(), KubeError> {
        let path = format!("/api/v1/nodes/{node}/status?fieldManager={manager}");
        let body = Some(("strategic-merge-patch+json", patch));
        self.call(Method::PATCH, &path, body, deadline).await.map(|_| ())
    }

    /// Puts an event on a Node.
    ///
    /// # Errors
    /// As [`KubeError`] lists.
    pub async fn create_event(
        &self,
        name: &str,
        event: &Event,
        deadline: Deadline,
    ) -> Result<(), KubeError> {
        let object = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": format!("{name}."), "namespace": "default"},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Node",
                "name": name,
                // kubelet's events carry the name as uid, and `kubectl describe node` looks for that.
                "uid": name,
            },
            "reason": event.reason,
            "message": event.message,
            "type": event.kind,
            "source": {"component": "rollcall-agent", "host": name},
            "reportingComponent": "rollcall-agent",
            "reportingInstance": name,
            "firstTimestamp": event.at,
            "lastTimestamp": event.at,
            "count": 1,
        });
        let path = "/api/v1/namespaces/default/events";
        self.call(Method::POST, path, Some(("json", &object)), deadline).await.map(|_| ())
    }

    async fn get(&self, path: &str, deadline: Deadline) -> Result<Option<Value>, KubeError> {
        match self.call(Method::GET, path, None, deadline).await {
            Ok(value) => Ok(Some(value)),
            Err(KubeError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
        deadline: Deadline,
    ) -> Result<Value, KubeError> {
        let url = format!("{}{path}", self.cluster.endpoint.trim_end_matches('/'));
        let mut request = self
            .http
            .request(method, url)
            .timeout(deadline.remaining().min(REQUEST))
            .bearer_auth(self.token(deadline).await?.expose());
        if let Some((kind, value)) = body {
            let bytes = value.to_string();
            request = request.header("content-type", format!("application/{kind}")).body(bytes);
        }
        let response = request.send().await?;
        if let Some(ahead) = clock_ahead(&response) {
            *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        }
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            *self.token.lock().await = None;
        }
        let text = response.text().await?;
        if !status.is_success() {
            return Err(KubeError::from_status(status, &text));
        }
        serde_json::from_str(&text).map_err(|error| KubeError::Malformed(error.to_string()))
    }

    async fn token(&self, deadline: Deadline) -> Result<Token, KubeError> {
        let mut held = self.token.lock().await;
        if let Some(held) = held.as_ref()
            && Instant::now() < held.until
        {
            return Ok(held.token.clone());
        }
        let credentials = self.credentials.get(deadline).await.map_err(KubeError::Credentials)?;
        let Cluster { name, region, .. } = &self.cluster;
        let token = eks_token::mint(&credentials, region, name, SystemTime::now());
        let token = token.map_err(KubeError::Token)?;
        *held = Some(HeldToken { token: token.clone(), until: Instant::now() + TOKEN_LIFE });
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::aws::Imds;
    use crate::testing::http::{Answer, Server};
    use crate::testing::{imds_answers, tls::Authority};

    async fn client(endpoint: &str, ca_pem: &str) -> (Client, Server) {
        let imds = Server::start(imds_answers).await;
        let credentials = RoleCredentials::new(Arc::new(Imds::at(&imds.url())));
        let cluster = Cluster {
            name: "prod".into(),
            region: "us-east-1".into(),
            endpoint: endpoint.into(),
            ca_pem: ca_pem.as_bytes().to_vec(),
            proxy: None,
        };
        (Client::new(cluster, credentials).unwrap(), imds)
    }

    fn soon() -> Deadline {
        Deadline::within(Duration::from_secs(2))
    }

    #[tokio::test]
    async fn says_who_we_are_with_a_token_made_here() {
        let authority = Authority::new();
        let server = Server::start_tls(&authority, |request| {
            let line = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews HTTP/1.1";
            assert!(request.starts_with(line), "{request}");
            assert!(request.contains("authorization: Bearer k8s-aws-v1."), "{request}");
            let body = r#"{"status":{"userInfo":{"username":"system:node:n1","groups":["system:nodes"]}}}"#;
            Answer::status(201, body).dated("Fri, 20 Nov 2026 20:00:00 GMT")
        })
        .await;
        let (client, _imds) = client(&server.url(), &authority.ca_pem).await;
        let identity = client.who_am_i(soon()).await.unwrap();
        assert_eq!(identity.username, "system:node:n1");
        assert_eq!(identity.groups, ["system:nodes"]);
        assert!(client.clock_ahead().is_some());
    }

    #[tokio::test]
    async fn tells_the_failures_apart() {
        let authority = Authority::new();
        let stranger = Authority::new();
        let server = Server::start_tls(&authority, |request| match request.split(' ').nth(1) {
            Some("/api/v1/nodes/absent") => Answer::status(404, r#"{"message":"not found"}"#),
            Some("/api/v1/nodes/other") => Answer::status(403, r#"{"message":"not yours"}"#),
            Some("/api/v1/nodes/silent") => Answer::Silence,
            _ => Answer::status(401, r#"{"message":"Unauthorized"}"#),
        })
        .await;
        let (known, _imds) = client(&server.url(), &authority.ca_pem).await;
        assert_eq!(known.node("absent", soon()).await.unwrap(), None);
        assert!(
            matches!(known.node("other", soon()).await, Err(KubeError::Forbidden(m)) if m == "not yours")
        );
        assert!(matches!(known.who_am_i(soon()).await, Err(KubeError::Unauthorized(_))));
        let short = Deadline::within(Duration::from_millis(200));
        let error = known.node("silent", short).await.unwrap_err();
        assert!(matches!(error, KubeError::Timeout(_)), "{error:?}");

        let (wrong_ca, _imds) = client(&server.url(), &stranger.ca_pem).await;
        let error = wrong_ca.who_am_i(soon()).await.unwrap_err();
        assert!(matches!(error, KubeError::Tls(_)), "{error:?}");
        let (nobody, _imds) = client("https://127.0.0.1:1", &authority.ca_pem).await;
        let error = nobody.who_am_i(soon()).await.unwrap_err();
        assert!(matches!(error, KubeError::Tcp(_)), "{error:?}");
        let (nameless, _imds) = client("https://no-such-host.invalid", &authority.ca_pem).await;
        let error = nameless.who_am_i(soon()).await.unwrap_err();
        assert!(matches!(error, KubeError::Dns(_)), "{error:?}");
    }

    #[tokio::test]
    async fn a_condition_is_merged_by_type() {
        let authority = Authority::new();
        let server = Server::start_tls(&authority, |_| Answer::ok("{}")).await;
        let (client, _imds) = client(&server.url(), &authority.ca_pem).await;
        let condition = Condition {
            kind: "AcceleratedHardwareReady".into(),
            status: "True".into(),
            reason: "GPUsReady".into(),
            message: String::new(),
            last_heartbeat_time: None,
            last_transition_time: Some("2026-11-20T20:00:00Z".into()),
        };
        client.set_node_condition("n1", &condition, "me", soon()).await.unwrap();
        let request = server.requests().remove(0);
        assert!(request.starts_with("PATCH /api/v1/nodes/n1/status?fieldManager=me "), "{request}");
        assert!(request.contains("content-type: application/strategic-merge-patch+json"));
        assert!(request.contains(r#""type":"AcceleratedHardwareReady""#), "{request}");
    }

    #[test]
    fn a_ca_that_is_none_is_refused_at_once() {
        let credentials = RoleCredentials::new(Arc::new(Imds::at("http://127.0.0.1:1")));
        let cluster = Cluster {
            name: "prod".into(),
            region: "us-east-1".into(),
            endpoint: "https://x".into(),
            ca_pem: b"hello".to_vec(),
            proxy: None,
        };
        let error = Client::new(cluster, credentials).unwrap_err();
        assert!(error.to_string().contains("CA"), "{error}");
    }
}
