//! The lab's own calls to the real API server, with the certificate that may do everything.

use std::time::Duration;

use reqwest::{Certificate, Client, Identity, Method, StatusCode};
use serde_json::{Value, json};

use super::RealError;
use super::pki::Pki;

/// How long one call may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Whose fields these are, for server-side apply.
const FIELD_MANAGER: &str = "rollcall-lab";

/// A client of one API server.
#[derive(Debug, Clone)]
pub(super) struct Api {
    base: String,
    client: Client,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("could not {method} `{path}`")]
    Transport {
        method: Method,
        path: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{method} `{path}` was answered {status}: {message}")]
    Refused { method: Method, path: String, status: StatusCode, message: String },
}

impl ApiError {
    /// Whether the object is not there.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}

impl Api {
    pub(super) fn new(base: String, pki: &Pki) -> Result<Self, RealError> {
        let client = Client::builder()
            .no_proxy()
            .timeout(ANSWER_WITHIN)
            .tls_certs_only([Certificate::from_pem(pki.ca_pem.as_bytes())?])
            .identity(Identity::from_pem(pki.admin_pem.as_bytes())?)
            .build()?;
        Ok(Self { base, client })
    }

    /// Whether the server says that it is ready.
    pub(super) async fn is_ready(&self) -> bool {
        let asked = self.client.get(format!("{}/readyz", self.base)).send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    /// One object or list.
    pub(super) async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.call(Method::GET, path, None).await
    }

    /// The items of a list.
    pub(super) async fn list(&self, path: &str) -> Result<Vec<Value>, ApiError> {
        let mut list = self.get(path).await?;
        Ok(match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        })
    }

    /// Server-side apply of a whole object at its path.
    pub(super) async fn apply(&self, path: &str, object: &Value) -> Result<(), ApiError> {
        let path = format!("{path}?fieldManager={FIELD_MANAGER}&force=true");
        let body = ("application/apply-patch+yaml", object);
        self.call(Method::PATCH, &path, Some(body)).await.map(drop)
    }

    /// A merge patch.
    pub(super) async fn merge(&self, path: &str, patch: &Value) -> Result<(), ApiError> {
        let body = ("application/merge-patch+json", patch);
        self.call(Method::PATCH, path, Some(body)).await.map(drop)
    }

    /// Replaces an object.
    pub(super) async fn put(&self, path: &str, object: &Value) -> Result<(), ApiError> {
        self.call(Method::PUT, path, Some(("application/json", object))).await.map(drop)
    }

    /// Removes an object; that it was gone already is success.
    pub(super) async fn delete(&self, path: &str) -> Result<(), ApiError> {
        let options = json!({"propagationPolicy": "Background"});
        match self.call(Method::DELETE, path, Some(("application/json", &options))).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value, ApiError> {
        let url = format!("{}{path}", self.base);
        let failed =
            |source| ApiError::Transport { method: method.clone(), path: path.to_owned(), source };
        let mut request = self.client.request(method.clone(), url);
        if let Some((media_type, content)) = body {
            request = request.header("content-type", media_type).body(content.to_string());
        }
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let text = response.text().await.map_err(failed)?;
        let answer: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if status.is_success() {
            return Ok(answer);
        }
        let message = answer["message"].as_str().map_or_else(|| answer.to_string(), str::to_owned);
        Err(ApiError::Refused { method, path: path.to_owned(), status, message })
    }
}
