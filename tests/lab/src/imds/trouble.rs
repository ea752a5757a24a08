//! What can go wrong with a node's metadata service.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde_json::Value;
use tokio::time::Sleep;

/// One thing that goes wrong, for faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Every answer comes late.
    Slow(Duration),
    /// Every request is answered with this status.
    Status(u16),
    /// No tokens are handed out.
    NoToken,
    /// Requests are taken and never answered.
    Silent,
    /// Every body ends in its middle, and the connection with it.
    Half,
    /// A field of the identity document, or a path, is not there.
    Lacks(String),
    /// A field of the identity document says something else.
    Says(String, String),
    /// A path below `meta-data` says this, whether it says anything otherwise or not.
    Announces(String, String),
}

impl Trouble {
    /// The trouble of that name, if it is one of these.
    #[must_use]
    pub fn parse(name: &str, value: Option<&str>) -> Option<Self> {
        Some(match (name, value) {
            ("imds-slow", Some(ms)) => Self::Slow(Duration::from_millis(ms.parse().ok()?)),
            ("imds-status", Some(code)) => {
                Self::Status(StatusCode::from_u16(code.parse().ok()?).ok()?.as_u16())
            }
            ("imds-no-token", None) => Self::NoToken,
            ("imds-silent", None) => Self::Silent,
            ("imds-half", None) => Self::Half,
            ("imds-lacks", Some(what)) => Self::Lacks(what.to_owned()),
            ("imds-says", Some(text)) => {
                let (field, value) = text.split_once(':')?;
                Self::Says(field.to_owned(), value.to_owned())
            }
            ("imds-announces", Some(text)) => {
                let (path, value) = text.split_once(':')?;
                Self::Announces(path.to_owned(), value.to_owned())
            }
            _ => return None,
        })
    }

    /// What becomes of a request before anybody looks at it; none: it is served.
    pub(super) async fn before(&self, path: &str) -> Option<Response> {
        match self {
            Self::Slow(delay) => {
                tokio::time::sleep(*delay).await;
                None
            }
            Self::Status(status) => {
                let status = StatusCode::from_u16(*status);
                Some(status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE).into_response())
            }
            Self::NoToken if path == "/latest/api/token" => {
                Some(StatusCode::FORBIDDEN.into_response())
            }
            Self::Silent => std::future::pending().await,
            Self::Lacks(what) if path.trim_start_matches("/latest/").starts_with(what.as_str()) => {
                Some(super::not_found())
            }
            Self::NoToken | Self::Half | Self::Lacks(_) | Self::Says(..) | Self::Announces(..) => {
                None
            }
        }
    }

    /// What becomes of an answer.
    pub(super) async fn after(&self, path: &str, answer: Response) -> Response {
        match self {
            // A token is too short to be cut: what is asked with it is what breaks.
            Self::Half if path != "/latest/api/token" => half(answer).await,
            Self::Lacks(field) if path.ends_with(DOCUMENT) => changed(answer, field, None).await,
            Self::Says(field, value) if path.ends_with(DOCUMENT) => {
                changed(answer, field, Some(value)).await
            }
            Self::Announces(at, text)
                if path.strip_prefix("/latest/meta-data/").is_some_and(|path| is_at(path, at))
                    && answer.status() != StatusCode::UNAUTHORIZED =>
            {
                super::plain(text.clone())
            }
            _ => answer,
        }
    }
}

/// Whether a path is the one that is meant; `{mac}` in it stands for the interface's address.
fn is_at(path: &str, meant: &str) -> bool {
    match meant.split_once("{mac}") {
        Some((head, tail)) => {
            let mac = path.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail));
            mac.is_some_and(|mac| !mac.contains('/'))
        }
        None => path == meant,
    }
}

/// The whole length is announced, half of it comes.
async fn half(answer: Response) -> Response {
    let (mut parts, body) = answer.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let first = bytes.slice(..bytes.len() / 2);
    parts.headers.insert(header::CONTENT_LENGTH, bytes.len().into());
    let cut = Cut { first: Some(first), then: Box::pin(tokio::time::sleep(FLUSH)) };
    Response::from_parts(parts, Body::new(cut))
}

/// How long the first half has to leave before the connection breaks.
const FLUSH: Duration = Duration::from_millis(20);

/// A body that breaks off.
struct Cut {
    first: Option<Bytes>,
    then: Pin<Box<Sleep>>,
}

impl hyper::body::Body for Cut {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if let Some(bytes) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        let broken = |()| Some(Err(std::io::Error::other("cut by a fault")));
        self.then.as_mut().poll(context).map(broken)
    }
}

/// The end of the identity document's path.
const DOCUMENT: &str = "instance-identity/document";

async fn changed(answer: Response, field: &str, to: Option<&str>) -> Response {
    let (parts, body) = answer.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let Ok(Value::Object(mut document)) = serde_json::from_slice(&bytes) else {
        return Response::from_parts(parts, Body::from(bytes));
    };
    match to {
        Some(value) => drop(document.insert(field.to_owned(), value.into())),
        None => drop(document.shift_remove(field)),
    }
    super::plain(Value::Object(document).to_string())
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow(delay) => write!(f, "imds-slow={}", delay.as_millis()),
            Self::Status(status) => write!(f, "imds-status={status}"),
            Self::NoToken => f.write_str("imds-no-token"),
            Self::Silent => f.write_str("imds-silent"),
            Self::Half => f.write_str("imds-half"),
            Self::Lacks(what) => write!(f, "imds-lacks={what}"),
            Self::Says(field, value) => write!(f, "imds-says={field}:{value}"),
            Self::Announces(path, text) => write!(f, "imds-announces={path}:{text}"),
        }
    }
}
