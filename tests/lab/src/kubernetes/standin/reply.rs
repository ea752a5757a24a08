//! Answers: JSON in one piece, or a watch's stream of lines.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame};
use hyper::{Response, StatusCode};
use serde_json::Value;
use tokio::sync::mpsc;

use super::status::ApiError;

/// An answer's body.
#[derive(Debug)]
pub(super) enum ReplyBody {
    /// All at once.
    Whole(Option<Bytes>),
    /// Line by line, until the sender is gone.
    Lines(mpsc::Receiver<Bytes>),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take()),
            Self::Lines(lines) => lines.poll_recv(context),
        };
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// The answer to a request.
pub(super) type Reply = Response<ReplyBody>;

fn reply(code: u16, content_type: &str, body: ReplyBody) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = content_type.parse() {
        reply.headers_mut().insert(hyper::header::CONTENT_TYPE, value);
    }
    reply
}

/// The reply of a server whose clock is ahead of this machine's by so many seconds.
pub(super) fn dated(mut reply: Reply, ahead: i64) -> Reply {
    if let Some(date) = crate::imds::http_date(ahead) {
        reply.headers_mut().insert(hyper::header::DATE, date);
    }
    reply
}

pub(super) fn json(code: u16, value: &Value) -> Reply {
    let body = Bytes::from(value.to_string());
    reply(code, "application/json", ReplyBody::Whole(Some(body)))
}

pub(super) fn text(code: u16, body: impl Into<Bytes>) -> Reply {
    let body = ReplyBody::Whole(Some(body.into()));
    reply(code, "text/plain; charset=utf-8", body)
}

pub(super) fn lines(receiver: mpsc::Receiver<Bytes>) -> Reply {
    reply(200, "application/json", ReplyBody::Lines(receiver))
}

pub(super) fn error(error: &ApiError) -> Reply {
    if error.is_plain() {
        return text(error.code, error.message.clone());
    }
    json(error.code, &error.to_status())
}
