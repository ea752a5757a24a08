//! Kubelet's side of the Kubernetes API: JSON over the kubeconfig's TLS, with a fresh token.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use contract::ErrorChain;
use eks_token::Token;
use reqwest::Method;
use serde_json::Value;
use tokio::sync::Mutex;

use super::KubeletError;
use super::imds::Imds;
use super::settings::Access;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// A token is replaced well before its 15 minutes are over, as the CLI's cache does.
const TOKEN_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// Why a call did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallError {
    /// The API server answered with a `Status`.
    #[error("{message}")]
    Status { code: u16, message: String },
    /// It did not answer.
    #[error("{0}")]
    Transport(String),
    /// The credential helper failed.
    #[error("getting credentials: exec: executable aws failed with exit code 255: {0}")]
    Credentials(String),
}

impl CallError {
    pub(super) fn code(&self) -> u16 {
        match self {
            Self::Status { code, .. } => *code,
            Self::Transport(_) | Self::Credentials(_) => 0,
        }
    }
}

fn transport(error: &reqwest::Error) -> CallError {
    CallError::Transport(ErrorChain(error).to_string())
}

/// A client for one node.
#[derive(Clone)]
pub(super) struct Api {
    access: Access,
    imds: Imds,
    client: reqwest::Client,
    token: Arc<Mutex<Option<(Token, Instant)>>>,
}

impl Api {
    pub(super) fn new(
        access: Access,
        proxy: Option<&str>,
        imds: Imds,
    ) -> Result<Self, KubeletError> {
        let failed = |error: reqwest::Error| KubeletError::Client(ErrorChain(&error).to_string());
        let ca = reqwest::Certificate::from_pem(access.ca_pem.as_bytes()).map_err(failed)?;
        let mut client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([ca])
            .connect_timeout(CONNECT_WITHIN);
        // Go goes to this machine's own addresses without a proxy.
        if let Some(proxy) = proxy {
            let except = reqwest::NoProxy::from_string("localhost,127.0.0.0/8,::1");
            let proxy = reqwest::Proxy::https(proxy).map_err(failed)?;
            client = client.proxy(proxy.no_proxy(except));
        }
        let client = client.build().map_err(failed)?;
        Ok(Self { access, imds, client, token: Arc::default() })
    }

    async fn bearer(&self) -> Result<Token, CallError> {
        let mut cached = self.token.lock().await;
        if let Some((token, made)) = cached.as_ref()
            && made.elapsed() < TOKEN_LIFETIME
        {
            return Ok(token.clone());
        }
        let credentials = self.imds.credentials().await.map_err(CallError::Credentials)?;
        let Access { region, cluster, .. } = &self.access;
        let token = eks_token::mint(&credentials, region, cluster, SystemTime::now());
        let token =
            token.map_err(|error| CallError::Credentials(ErrorChain(&error).to_string()))?;
        *cached = Some((token.clone(), Instant::now()));
        Ok(token)
    }

    /// A request, answered or refused.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
        within: Option<Duration>,
    ) -> Result<reqwest::Response, CallError> {
        let bearer = self.bearer().await?;
        let mut request = self.client.request(method, format!("{}{path}", self.access.server));
        request = request.bearer_auth(bearer.expose());
        if let Some(within) = within {
            request = request.timeout(within);
        }
        if let Some((content_type, body)) = body {
            request = request.header("content-type", content_type).body(body.to_string());
        }
        let response = request.send().await.map_err(|error| transport(&error))?;
        let code = response.status().as_u16();
        if response.status().is_success() {
            return Ok(response);
        }
        if code == 401 {
            // Like the exec plugin: the next call gets a new token.
            *self.token.lock().await = None;
        }
        let status: Value = response.json().await.unwrap_or_default();
        let message = status["message"].as_str().unwrap_or("unknown").to_owned();
        Err(CallError::Status { code, message })
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value, CallError> {
        let response = self.send(method, path, body, Some(ANSWER_WITHIN)).await?;
        response.json().await.map_err(|error| transport(&error))
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, CallError> {
        self.call(Method::GET, path, None).await
    }

    pub(super) async fn create(&self, path: &str, object: &Value) -> Result<Value, CallError> {
        self.call(Method::POST, path, Some(("application/json", object))).await
    }

    pub(super) async fn patch(&self, path: &str, patch: &Value) -> Result<Value, CallError> {
        let content_type = "application/strategic-merge-patch+json";
        self.call(Method::PATCH, path, Some((content_type, patch))).await
    }

    /// A watch: its answer is read line by line for as long as it lasts.
    pub(super) async fn watch(&self, path: &str) -> Result<reqwest::Response, CallError> {
        self.send(Method::GET, path, None, None).await
    }
}
