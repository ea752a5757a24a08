//! A node's instance metadata service, version 2 only, on the node's own loopback address.
//!
//! [`tree`] says what is where; this file is the protocol: tokens, refusals, and the role's
//! credentials, which the lab gets from `sts:AssumeRole` and renews.

mod tree;
mod trouble;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::aws::{Credentials, Emulator, Instance};
pub use tree::Node;
pub use trouble::Trouble;

/// The role's credentials as IMDS serves them.
#[derive(Clone, Debug)]
struct RoleCredentials {
    credentials: Credentials,
    issued: Timestamp,
    expiration: String,
}

/// One node's metadata service.
#[derive(Debug)]
pub struct Imds {
    instance: Instance,
    user_data: Option<Vec<u8>>,
    role: Mutex<Option<RoleCredentials>>,
    /// Whether the role was asked for, whatever became of it.
    asked: AtomicBool,
    tokens: Mutex<HashMap<String, Instant>>,
    troubles: Mutex<Vec<Trouble>>,
    /// By how many seconds our clock is ahead of the node's.
    ahead: AtomicI64,
}

/// EC2 hands out credentials for about six hours and renews them well before they end.
const RENEW_BEFORE: Duration = Duration::from_secs(15 * 60);
/// How long after a failure the role is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// The longest life of a session token, in seconds.
const TOKEN_TTL_MAX: u64 = 21_600;

impl Imds {
    /// The service of an instance; `user_data` as EC2 hands it out.
    #[must_use]
    pub fn new(instance: Instance, user_data: Option<Vec<u8>>) -> Arc<Self> {
        Arc::new(Self {
            instance,
            user_data,
            role: Mutex::default(),
            asked: AtomicBool::new(false),
            tokens: Mutex::default(),
            troubles: Mutex::default(),
            ahead: AtomicI64::new(0),
        })
    }

    /// The role's credentials, once there are some.
    #[must_use]
    pub fn credentials(&self) -> Option<Credentials> {
        lock(&self.role).as_ref().map(|role| role.credentials.clone())
    }

    /// Makes the service misbehave, or behave again.
    pub fn set_troubles(&self, troubles: Vec<Trouble>) {
        *lock(&self.troubles) = troubles;
    }

    /// Gives the service a clock that is ahead of the node's by so many seconds.
    pub fn set_clock(&self, ahead: i64) {
        self.ahead.store(ahead, Ordering::Relaxed);
    }

    /// Serves on `listener`, and keeps the role's credentials fresh, until both tasks are aborted.
    pub fn start(self: &Arc<Self>, listener: TcpListener, emulator: Emulator) -> Tasks {
        let router = Router::new().fallback(handle).with_state(Arc::clone(self));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "imds ended");
            }
        });
        let renewer = tokio::spawn(Arc::clone(self).renew(emulator));
        Tasks(vec![server, renewer])
    }

    /// Gets credentials once.
    ///
    /// # Errors
    /// When the emulator does not give any.
    pub async fn refresh(&self, emulator: &Emulator) -> Result<(), crate::aws::EmulatorError> {
        let Some(role) = &self.instance.role_arn else { return Ok(()) };
        let issued = Timestamp::now();
        let assumed = emulator.assume_role(role, &self.instance.instance_id).await;
        self.asked.store(true, Ordering::Relaxed);
        let (credentials, expiration) = assumed?;
        *lock(&self.role) = Some(RoleCredentials { credentials, issued, expiration });
        Ok(())
    }

    async fn renew(self: Arc<Self>, emulator: Emulator) {
        if self.instance.role_arn.is_none() {
            return;
        }
        loop {
            let pause = self.until_renewal();
            tokio::time::sleep(pause).await;
            if let Err(error) = self.refresh(&emulator).await {
                let id = &self.instance.instance_id;
                tracing::warn!(instance = %id, %error, "no credentials for the instance's role");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }

    fn until_renewal(&self) -> Duration {
        let role = lock(&self.role);
        let Some(role) = role.as_ref() else { return Duration::ZERO };
        let expires = role.expiration.parse::<Timestamp>().unwrap_or(role.issued);
        let left = expires.duration_since(Timestamp::now());
        Duration::try_from(left).unwrap_or_default().saturating_sub(RENEW_BEFORE)
    }

    fn role_document(&self) -> String {
        let role = lock(&self.role);
        let Some(role) = role.as_ref() else {
            // What EC2 serves when the role's trust policy does not let it in.
            return json!({
                "Code": "AssumeRoleUnauthorizedAccess",
                "Message": "EC2 cannot assume the role. Please see documentation.",
                "LastUpdated": tree::seconds(Timestamp::now()),
            })
            .to_string();
        };
        json!({
            "Code": "Success",
            "LastUpdated": tree::seconds(role.issued),
            "Type": "AWS-HMAC",
            "AccessKeyId": role.credentials.access_key_id,
            "SecretAccessKey": role.credentials.secret_access_key,
            "Token": role.credentials.session_token,
            "Expiration": role.expiration,
        })
        .to_string()
    }

    fn issue_token(&self, headers: &HeaderMap) -> Response {
        // A hop through a proxy is refused, as EC2 does.
        if headers.contains_key("x-forwarded-for") {
            return StatusCode::FORBIDDEN.into_response();
        }
        let ttl = headers
            .get("x-aws-ec2-metadata-token-ttl-seconds")
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
            .filter(|ttl| (1..=TOKEN_TTL_MAX).contains(ttl));
        let Some(ttl) = ttl else { return StatusCode::BAD_REQUEST.into_response() };
        let token = new_token();
        let now = Instant::now();
        let mut tokens = lock(&self.tokens);
        tokens.retain(|_, expires| *expires > now);
        tokens.insert(token.clone(), now + Duration::from_secs(ttl));
        ([("x-aws-ec2-metadata-token-ttl-seconds", ttl.to_string())], token).into_response()
    }

    fn is_authorised(&self, headers: &HeaderMap) -> bool {
        let token = headers.get("x-aws-ec2-metadata-token").and_then(|v| v.to_str().ok());
        let tokens = lock(&self.tokens);
        token.and_then(|t| tokens.get(t)).is_some_and(|expires| *expires > Instant::now())
    }

    fn answer(&self, path: &str, request: &Request) -> Response {
        if path == "/latest/api/token" {
            return if request.method() == Method::PUT {
                self.issue_token(request.headers())
            } else {
                StatusCode::METHOD_NOT_ALLOWED.into_response()
            };
        }
        if request.method() != Method::GET {
            return StatusCode::METHOD_NOT_ALLOWED.into_response();
        }
        if !self.is_authorised(request.headers()) {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        self.get(path)
    }

    fn get(&self, path: &str) -> Response {
        let node = Node { instance: &self.instance };
        if path == "/latest/user-data" {
            return match &self.user_data {
                Some(data) => {
                    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
                    (kind, Bytes::from(data.clone())).into_response()
                }
                None => not_found(),
            };
        }
        let role = self.instance.role_name().unwrap_or_default();
        if !role.is_empty()
            && path.strip_prefix("/latest/meta-data/iam/security-credentials/") == Some(role)
        {
            // Until EC2 has tried to assume the role there is nothing to say of it.
            let is_known = self.asked.load(Ordering::Relaxed) || self.credentials().is_some();
            return if is_known { plain(self.role_document()) } else { not_found() };
        }
        node.get(path).map_or_else(not_found, plain)
    }
}

/// The tasks of one IMDS; dropping them ends it.
#[derive(Debug)]
pub struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

async fn handle(State(imds): State<Arc<Imds>>, request: Request) -> Response {
    let troubles = lock(&imds.troubles).clone();
    let path = request.uri().path().to_owned();
    for trouble in &troubles {
        if let Some(answer) = trouble.before(&path).await {
            return answer;
        }
    }
    let mut answer = imds.answer(&path, &request);
    for trouble in &troubles {
        answer = trouble.after(&path, answer).await;
    }
    let ahead = imds.ahead.load(Ordering::Relaxed);
    if ahead != 0
        && let Some(date) = http_date(ahead)
    {
        answer.headers_mut().insert(header::DATE, date);
    }
    answer
}

/// The date of an answer by a clock that is ahead of this machine's by so many seconds.
pub(crate) fn http_date(ahead: i64) -> Option<HeaderValue> {
    let now = Timestamp::now() + jiff::SignedDuration::from_secs(ahead);
    let text = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    HeaderValue::from_str(&text).ok()
}

fn plain(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain")], text).into_response()
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404 - Not Found").into_response()
}

/// A token that cannot be guessed: it comes from the kernel.
fn new_token() -> String {
    let uuid = || std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    format!("AQAEA{}{}==", uuid().trim(), uuid().trim()).replace('-', "")
}

/// A poisoned lock only says that another request panicked; the data is whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
