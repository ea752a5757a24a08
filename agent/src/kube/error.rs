//! Why the API server did not answer as asked, as precisely as the join must know it.

use std::error::Error;
use std::io;

use reqwest::StatusCode;

use crate::aws::credentials::CredentialsError;
use eks_token::TokenError;

/// Why a call to the API server did not go through.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// The cluster's own description cannot be used.
    #[error("the cluster's {what} cannot be used: {why}")]
    Cluster {
        /// What of it.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// There are no credentials to make a token from.
    #[error("no credentials for a token")]
    Credentials(#[source] CredentialsError),
    /// The token cannot be made.
    #[error("no token")]
    Token(#[source] TokenError),
    /// The server's name does not resolve.
    #[error("the API server's name does not resolve")]
    Dns(#[source] reqwest::Error),
    /// No connection.
    #[error("no connection to the API server")]
    Tcp(#[source] reqwest::Error),
    /// The server's certificate is not the cluster's, or the handshake fails.
    #[error("no trusted connection to the API server")]
    Tls(#[source] reqwest::Error),
    /// Connected, and no answer in time.
    #[error("the API server does not answer in time")]
    Timeout(#[source] reqwest::Error),
    /// 401: it does not know us.
    #[error("the API server does not know this node: {0}")]
    Unauthorized(String),
    /// 403: it knows us, and we may not.
    #[error("the API server refuses: {0}")]
    Forbidden(String),
    /// 404.
    #[error("not found: {0}")]
    NotFound(String),
    /// Any other status.
    #[error("the API server answers {status}: {message}")]
    Status {
        /// The HTTP status.
        status: StatusCode,
        /// What the Status object says.
        message: String,
    },
    /// Anything else on the way.
    #[error("the call to the API server failed")]
    Other(#[source] reqwest::Error),
    /// The answer cannot be read.
    #[error("the API server's answer cannot be read: {0}")]
    Malformed(String),
}

impl From<reqwest::Error> for KubeError {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let is_tls = any_source(&error, is_tls);
        if is_tls {
            Self::Tls(error)
        } else if any_source(&error, |source| source.to_string().starts_with("dns error")) {
            Self::Dns(error)
        } else if error.is_connect() {
            Self::Tcp(error)
        } else if error.is_timeout() {
            Self::Timeout(error)
        } else {
            Self::Other(error)
        }
    }
}

/// An `io::Error` does not show the error within it as its source, but that one's source.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<rustls::Error>() || inner.is_some_and(|inner| is_tls(inner))
}

fn any_source(error: &(dyn Error + 'static), is: impl Fn(&(dyn Error + 'static)) -> bool) -> bool {
    let mut next = error.source();
    while let Some(source) = next {
        if is(source) {
            return true;
        }
        next = source.source();
    }
    false
}

impl KubeError {
    /// The error for an answer that is not a success, from the Status object in its body.
    #[must_use]
    pub fn from_status(status: StatusCode, body: &str) -> Self {
        let message = serde_json::from_str::<serde_json::Value>(body)
            .ok()
            .and_then(|value| value.get("message")?.as_str().map(str::to_owned))
            .unwrap_or_else(|| body.chars().take(200).collect());
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized(message),
            StatusCode::FORBIDDEN => Self::Forbidden(message),
            StatusCode::NOT_FOUND => Self::NotFound(message),
            status => Self::Status { status, message },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_the_server_said() {
        let body = r#"{"kind":"Status","message":"nodes \"x\" not found"}"#;
        for (status, body, expected) in [
            (401, r#"{"message":"Unauthorized"}"#, "does not know this node: Unauthorized"),
            (403, r#"{"message":"no"}"#, "refuses: no"),
            (404, body, "not found: nodes \"x\" not found"),
            (500, "<html>", "answers 500 Internal Server Error: <html>"),
        ] {
            let error = KubeError::from_status(StatusCode::from_u16(status).unwrap(), body);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
