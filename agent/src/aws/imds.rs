//! The instance metadata service, IMDSv2 only.
//!
//! A client of our own, because the join must tell apart what the SDK's folds into one error: it does
//! not answer, it refuses, it lacks the value, it is broken.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Method, Response, StatusCode};
use tokio::time::Instant;

use crate::host::Deadline;

const DEFAULT_ENDPOINT: &str = "http://169.254.169.254";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const TOKEN_TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// How long a token is asked to live, and how long before its end it is renewed.
const TOKEN_TTL: Duration = Duration::from_secs(6 * 3600);
const TOKEN_RENEW: Duration = Duration::from_secs(300);

/// How long one request may take: the service is on the same host.
const REQUEST: Duration = Duration::from_secs(2);

/// The largest answer taken; user data is at most 16 KiB.
const ANSWER_MAX: usize = 256 * 1024;

/// Why the metadata service gave no value.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    /// No connection, or no answer in time.
    #[error("no answer from the instance metadata service for `{path}`")]
    Unreachable {
        /// What was asked for.
        path: String,
        /// Why.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// It answers, and refuses: 401 or 403, or no IMDSv2 token.
    #[error("the instance metadata service refuses `{path}` with {status}")]
    Denied {
        /// What was asked for.
        path: String,
        /// How it was refused.
        status: StatusCode,
    },
    /// It has no such value.
    #[error("the instance metadata service has no `{path}`")]
    NotFound {
        /// What was asked for.
        path: String,
    },
    /// It answers with an error of its own, or with something unusable.
    #[error("the instance metadata service answers `{path}` with {what}")]
    Failed {
        /// What was asked for.
        path: String,
        /// What it answered.
        what: String,
    },
}

impl ImdsError {
    /// Whether asking again can help.
    const fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Failed { .. })
    }
}

/// A client of the instance metadata service.
#[derive(Debug)]
pub struct Imds {
    http: reqwest::Client,
    endpoint: String,
    token: tokio::sync::Mutex<Option<Token>>,
    ahead: Mutex<Option<i64>>,
}

struct Token {
    value: String,
    until: Instant,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

impl Imds {
    /// The service at the address that the SDK's standard variable names, or at its own.
    #[must_use]
    pub fn from_env() -> Self {
        let endpoint = std::env::var("AWS_EC2_METADATA_SERVICE_ENDPOINT").ok();
        Self::at(endpoint.filter(|text| !text.is_empty()).as_deref().unwrap_or(DEFAULT_ENDPOINT))
    }

    /// The service at `endpoint`.
    #[must_use]
    pub fn at(endpoint: &str) -> Self {
        // No root certificates: it is plain HTTP, and loading the system's costs time and memory.
        let http = reqwest::Client::builder()
            .tls_certs_only([])
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(REQUEST)
            .timeout(REQUEST)
            .build()
            .unwrap_or_default();
        Self {
            http,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: tokio::sync::Mutex::default(),
            ahead: Mutex::default(),
        }
    }

    /// The value at `path` (`meta-data/instance-id`), asked for again until the deadline when the
    /// service does not answer or fails.
    ///
    /// # Errors
    /// Refused and missing values at once, others at the deadline.
    pub async fn get(&self, path: &str, deadline: Deadline) -> Result<Vec<u8>, ImdsError> {
        let mut pause = Duration::from_millis(100);
        loop {
            match self.attempt(path, deadline).await {
                Err(error) if error.is_transient() && deadline.remaining() > pause => {
                    tracing::debug!(error = %contract::ErrorChain(&error), "asking again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
                result => return result,
            }
        }
    }

    /// As [`Self::get`], as text without surrounding white space.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn text(&self, path: &str, deadline: Deadline) -> Result<String, ImdsError> {
        let bytes = self.get(path, deadline).await?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// As [`Self::get`]; a missing value is `None`.
    ///
    /// # Errors
    /// As [`Self::get`], without [`ImdsError::NotFound`].
    pub async fn optional(
        &self,
        path: &str,
        deadline: Deadline,
    ) -> Result<Option<Vec<u8>>, ImdsError> {
        match self.get(path, deadline).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(ImdsError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The value at `path`, asked for once: nothing when there is none or it cannot be had.
    pub async fn once(&self, path: &str, deadline: Deadline) -> Option<Vec<u8>> {
        match self.attempt(path, deadline).await {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                tracing::trace!(error = %contract::ErrorChain(&error), "not said");
                None
            }
        }
    }

    /// By how many seconds the node's clock was ahead of the service's at its last answer.
    #[must_use]
    pub fn clock_ahead(&self) -> Option<i64> {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn attempt(&self, path: &str, deadline: Deadline) -> Result<Vec<u8>, ImdsError> {
        let mut response = self.request(path, deadline, &self.token(deadline).await?).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            // The token has ended early, as after a stop and start: one new one.
            *self.token.lock().await = None;
            response = self.request(path, deadline, &self.token(deadline).await?).await?;
        }
        match response.status() {
            StatusCode::OK => read_body(path, response).await,
            StatusCode::NOT_FOUND => Err(ImdsError::NotFound { path: path.into() }),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                Err(ImdsError::Denied { path: path.into(), status })
            }
            status => Err(ImdsError::Failed { path: path.into(), what: status.to_string() }),
        }
    }

    async fn request(
        &self,
        path: &str,
        deadline: Deadline,
        token: &str,
    ) -> Result<Response, ImdsError> {
        let request = self
            .http
            .request(Method::GET, format!("{}/latest/{path}", self.endpoint))
            .header(TOKEN_HEADER, token);
        self.send(path, request, deadline).await
    }

    async fn token(&self, deadline: Deadline) -> Result<String, ImdsError> {
        const PATH: &str = "api/token";
        let mut held = self.token.lock().await;
        if let Some(token) = held.as_ref()
            && Instant::now() < token.until
        {
            return Ok(token.value.clone());
        }
        let request = self
            .http
            .request(Method::PUT, format!("{}/latest/{PATH}", self.endpoint))
            .header(TOKEN_TTL_HEADER, TOKEN_TTL.as_secs());
        let response = self.send(PATH, request, deadline).await?;
        let status = response.status();
        if status.is_server_error() {
            return Err(ImdsError::Failed { path: PATH.into(), what: status.to_string() });
        }
        if status != StatusCode::OK {
            return Err(ImdsError::Denied { path: PATH.into(), status });
        }
        let value = String::from_utf8_lossy(&read_body(PATH, response).await?).trim().to_owned();
        let until = Instant::now() + TOKEN_TTL - TOKEN_RENEW;
        *held = Some(Token { value: value.clone(), until });
        Ok(value)
    }

    async fn send(
        &self,
        path: &str,
        request: reqwest::RequestBuilder,
        deadline: Deadline,
    ) -> Result<Response, ImdsError> {
        let limit = deadline.remaining().min(REQUEST);
        let response = request.timeout(limit).send().await;
        let response = response.map_err(|source| ImdsError::Unreachable {
            path: path.into(),
            source: Some(source.without_url()),
        })?;
        if let Some(ahead) = clock_ahead(&response) {
            *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        }
        Ok(response)
    }
}

async fn read_body(path: &str, mut response: Response) -> Result<Vec<u8>, ImdsError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(_) => {
                let what = format!("half a body ({} bytes)", body.len());
                return Err(ImdsError::Failed { path: path.into(), what });
            }
        }
        if body.len() > ANSWER_MAX {
            let what = format!("more than {ANSWER_MAX} bytes");
            return Err(ImdsError::Failed { path: path.into(), what });
        }
    }
}

/// By how many seconds our clock is ahead of the one that dated `response`.
pub(crate) fn clock_ahead(response: &Response) -> Option<i64> {
    let date = response.headers().get(reqwest::header::DATE)?.to_str().ok()?;
    let theirs = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    Some(Timestamp::now().as_second() - theirs.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::http::{Answer, Server};

    const DAY: Duration = Duration::from_secs(86_400);

    fn imds(server: &Server) -> Imds {
        Imds::at(&server.url())
    }

    fn with_token(request: &str, answer: Answer) -> Answer {
        if request.starts_with("PUT /latest/api/token") {
            assert!(request.contains("x-aws-ec2-metadata-token-ttl-seconds: 21600"), "{request}");
            Answer::ok("TOKEN")
        } else if request.contains("x-aws-ec2-metadata-token: TOKEN\r\n") {
            answer
        } else {
            Answer::status(401, "")
        }
    }

    #[tokio::test]
    async fn asks_with_a_token_and_keeps_it() {
        let server = Server::start(|request| with_token(request, Answer::ok(" i-0abc\n"))).await;
        let imds = imds(&server);
        let deadline = Deadline::within(DAY);
        assert_eq!(imds.text("meta-data/instance-id", deadline).await.unwrap(), "i-0abc");
        assert_eq!(imds.text("meta-data/instance-id", deadline).await.unwrap(), "i-0abc");
        let tokens = server.requests().iter().filter(|r| r.starts_with("PUT")).count();
        assert_eq!(tokens, 1);
        assert_eq!(imds.clock_ahead(), None, "the answers were not dated");
    }

    #[tokio::test]
    async fn tells_the_failures_apart() {
        type Script = fn(&str) -> Answer;
        let cases: [(Script, &str); 4] = [
            (|r| with_token(r, Answer::status(404, "")), "has no `user-data`"),
            (|_| Answer::status(403, ""), "refuses `api/token` with 403"),
            (|r| with_token(r, Answer::status(503, "")), "answers `user-data` with 503"),
            (|r| with_token(r, Answer::Half("abc")), "answers `user-data` with half a body"),
        ];
        for (script, expected) in cases {
            let server = Server::start(script).await;
            let deadline = Deadline::within(Duration::from_millis(300));
            let error = imds(&server).get("user-data", deadline).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error} instead of {expected}");
        }
        let nobody = Imds::at("http://127.0.0.1:1");
        let deadline = Deadline::within(Duration::from_millis(300));
        let error = nobody.get("user-data", deadline).await.unwrap_err();
        assert!(matches!(error, ImdsError::Unreachable { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_silent_service_is_left_at_the_deadline() {
        let server = Server::start(|_| Answer::Silence).await;
        let start = Instant::now();
        let deadline = Deadline::within(Duration::from_millis(300));
        let error = imds(&server).get("user-data", deadline).await.unwrap_err();
        assert!(matches!(error, ImdsError::Unreachable { .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test]
    async fn asks_again_when_the_service_recovers() {
        let server = Server::start_counting(|n, request| match n {
            0 | 1 => Answer::status(500, ""),
            _ => with_token(request, Answer::ok("fine").dated("Fri, 20 Nov 2026 20:00:00 GMT")),
        })
        .await;
        let imds = imds(&server);
        assert_eq!(imds.text("user-data", Deadline::within(DAY)).await.unwrap(), "fine");
        assert!(imds.clock_ahead().is_some());
        assert_eq!(imds.optional("x", Deadline::within(DAY)).await.unwrap().unwrap(), b"fine");
    }
}
