//! A served cluster, in either gear, and those who ask it.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::world::{TestWorld, minted};
use super::{GRACE, PATIENCE, until};
use crate::kubernetes::ControlPlane;
use crate::kubernetes::real::{self, Parts, RealConfig};
use crate::kubernetes::standin::{self, StandinConfig, Timing};
use crate::kubernetes::world::World;

/// Which of the two serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gear {
    Standin,
    Real,
}

/// A served cluster.
pub(super) struct Served {
    pub(super) world: Arc<TestWorld>,
    pub(super) handle: ControlPlane,
    http: reqwest::Client,
    _dir: tempfile::TempDir,
}

/// A cluster on the stand-in.
pub(super) async fn standin() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let config = StandinConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        dir: dir.path().to_owned(),
        region: "us-east-1".into(),
    };
    let bound = standin::bind(config).await.unwrap();
    assert_eq!(std::fs::read_to_string(bound.ca_path()).unwrap(), bound.ca_pem());
    let world = Arc::new(TestWorld::new());
    let timing = Timing { pass: Duration::from_millis(100), grace: GRACE };
    let handle = bound.serve_world(Arc::clone(&world) as Arc<dyn World>, timing);
    Served::new(world, ControlPlane::Standin(handle), dir).await
}

/// A cluster on the real API server with its real controllers: on loopback, as any user.
pub(super) async fn real(parts: Parts) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let config = RealConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        dir: dir.path().to_owned(),
        region: "us-east-1".into(),
        parts,
    };
    let bound = real::bind(config).await.unwrap();
    let world = Arc::new(TestWorld::new());
    let handle = bound.serve_world(Arc::clone(&world) as Arc<dyn World>).await.unwrap();
    Served::new(world, ControlPlane::Real(handle), dir).await
}

impl Served {
    async fn new(world: Arc<TestWorld>, handle: ControlPlane, dir: tempfile::TempDir) -> Self {
        let ca = reqwest::Certificate::from_pem(handle.ca_pem().as_bytes()).unwrap();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().unwrap();
        let served = Self { world, handle, http, _dir: dir };
        served.until_usable().await;
        served
    }

    /// Waits for what a new cluster gets by itself: its namespaces, and their service accounts.
    pub(super) async fn until_usable(&self) {
        let operator = self.user("OPERATOR");
        for namespace in ["default", "kube-system"] {
            let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
            until(|| async { operator.try_get(&account).await == Some(200) }).await;
        }
    }

    /// Takes away what a check has left, so that the next finds a new cluster.
    pub(super) async fn reset(&self) {
        self.world.reset();
        let operator = self.user("OPERATOR");
        for collection in [
            "/apis/apps/v1/namespaces/kube-system/daemonsets",
            "/apis/apps/v1/namespaces/kube-system/deployments",
            "/api/v1/namespaces/kube-system/pods?gracePeriodSeconds=0",
            "/api/v1/namespaces/default/pods?gracePeriodSeconds=0",
            "/api/v1/namespaces/default/configmaps",
            "/api/v1/namespaces/default/events",
            "/api/v1/nodes",
        ] {
            operator.delete(collection).await;
        }
        operator.delete("/apis/rbac.authorization.k8s.io/v1/clusterroles/reader").await;
        let binding =
            "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/rolebindings/reader";
        operator.delete(binding).await;
        let none = |path| {
            let operator = operator.clone();
            async move { operator.get(path).await.1["items"] == json!([]) }
        };
        until(|| none("/api/v1/nodes")).await;
        until(|| none("/api/v1/namespaces/kube-system/pods")).await;
        until(|| async { self.handle.nodes().is_empty() }).await;
        // The last check may have shut the nodes out.
        until(|| async { self.user("NODEA").try_get("/version").await == Some(200) }).await;
    }

    pub(super) fn gear(&self) -> Gear {
        match self.handle {
            ControlPlane::Standin(_) => Gear::Standin,
            ControlPlane::Real(_) => Gear::Real,
        }
    }

    pub(super) fn with_token(&self, token: Option<String>) -> Client {
        Client { base: self.handle.endpoint().to_owned(), http: self.http.clone(), token }
    }

    pub(super) fn user(&self, key: &str) -> Client {
        self.with_token(Some(minted(key, "prod", Duration::ZERO)))
    }
}

/// Somebody who asks.
#[derive(Clone)]
pub(super) struct Client {
    base: String,
    http: reqwest::Client,
    token: Option<String>,
}

pub(super) const MERGE: &str = "application/merge-patch+json";
pub(super) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(super) const APPLY: &str = "application/apply-patch+yaml";

impl Client {
    pub(super) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base)).timeout(PATIENCE);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Value)>,
    ) -> (u16, Value) {
        let mut request = self.request(method, path);
        if let Some((content_type, body)) = body {
            request = request.header("content-type", content_type).body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let code = response.status().as_u16();
        (code, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
    }

    /// The code of an answer; none where nothing answers.
    async fn try_get(&self, path: &str) -> Option<u16> {
        Some(self.request(Method::GET, path).send().await.ok()?.status().as_u16())
    }

    pub(super) async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::POST, path, Some(("application/json", body))).await
    }

    pub(super) async fn post_protobuf(&self, path: &str, body: &[u8]) -> (u16, Value) {
        let request = self.request(Method::POST, path).body(body.to_owned());
        let request = request.header("content-type", "application/vnd.kubernetes.protobuf");
        let response = request.header("accept", "application/json").send().await.unwrap();
        let code = response.status().as_u16();
        (code, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
    }

    pub(super) async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::PUT, path, Some(("application/json", body))).await
    }

    pub(super) async fn patch(&self, path: &str, content_type: &str, body: Value) -> (u16, Value) {
        self.call(Method::PATCH, path, Some((content_type, body))).await
    }

    pub(super) async fn delete(&self, path: &str) -> (u16, Value) {
        self.call(Method::DELETE, path, None).await
    }
}
