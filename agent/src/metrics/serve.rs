//! The HTTP server: `/metrics` and `/healthz`, from memory, bounded in time and in connections.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::render;
use super::snapshot::Snapshot;

/// Connections at a time; more are closed unread.
const CONNECTIONS: usize = 32;
/// How long a client may take to say what it wants.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// How long a connection may last.
const CONNECTION_TIME: Duration = Duration::from_secs(15);

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on `{address}` for scrapes")]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

/// Listens.
///
/// # Errors
/// The address is taken, or not this node's.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { address, source })
}

/// Serves the latest of `snapshots` until it is dropped.
pub async fn serve(listener: TcpListener, snapshots: watch::Receiver<Arc<Snapshot>>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: give others time to close theirs.
                tracing::warn!(%error, "a scrape could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let snapshots = snapshots.clone();
        tokio::spawn(async move {
            let _slot = slot;
            // A client that goes away or dawdles is none of our trouble.
            let _ = timeout(CONNECTION_TIME, connection(stream, snapshots)).await;
        });
    }
}

async fn connection(stream: TcpStream, snapshots: watch::Receiver<Arc<Snapshot>>) {
    let service = service_fn(|request: Request<Incoming>| {
        let snapshot = Arc::clone(&snapshots.borrow());
        async move { Ok::<_, Infallible>(answer(request.method(), request.uri().path(), &snapshot)) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a scrape broke off");
    }
}

fn answer(method: &Method, path: &str, snapshot: &Snapshot) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => match render::render(snapshot, Instant::now()) {
            Ok(metrics) => {
                let mut response = text(StatusCode::OK, metrics);
                let kind = hyper::header::HeaderValue::from_static(render::CONTENT_TYPE);
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/" => text(StatusCode::OK, "rollcall-agent: see /metrics and /healthz\n"),
        _ => text(StatusCode::NOT_FOUND, "nothing here: see /metrics and /healthz\n"),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn start() -> (SocketAddr, watch::Sender<Arc<Snapshot>>) {
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = watch::channel(Arc::new(Snapshot::default()));
        tokio::spawn(serve(listener, receiver));
        (address, sender)
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{request}\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn serves_the_latest_snapshot() {
        let (address, sender) = start().await;
        let answer = ask(address, "GET /metrics HTTP/1.1").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("rollcall_driver_up 0"));
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        sender.send_replace(Arc::new(Snapshot { driver_up: true, ..Snapshot::default() }));
        let answer = ask(address, "GET /metrics HTTP/1.1").await;
        assert!(answer.contains("rollcall_driver_up 1"), "{answer}");
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused_in_words() {
        let (address, _sender) = start().await;
        for (request, status) in [
            ("GET /healthz HTTP/1.1", "200"),
            ("GET / HTTP/1.1", "200"),
            ("GET /metrics/x HTTP/1.1", "404"),
            ("POST /metrics HTTP/1.1", "405"),
        ] {
            let answer = ask(address, request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
        }
    }

    #[tokio::test]
    async fn idle_clients_do_not_keep_others_out_for_ever() {
        let (address, _sender) = start().await;
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        // Past the header time the idle ones are closed: each reads its end.
        for mut stream in idle {
            let mut rest = Vec::new();
            let end = timeout(HEADER_TIME * 3, stream.read_to_end(&mut rest)).await;
            assert!(end.is_ok(), "an idle client is kept");
        }
        assert!(ask(address, "GET /healthz HTTP/1.1").await.contains("200"));
    }
}
