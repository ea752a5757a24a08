//! Accepts connections, and closes them all when the API server is to be unreachable.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::service::{self, ApiServer};

/// How long a client may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often listening again is tried when the port is not free at once.
const REBIND: Duration = Duration::from_millis(50);

/// What the listener is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Accept.
    Open,
    /// Refuse: nothing listens, and what was connected is not any more.
    Closed,
    /// End.
    Stopped,
}

/// Serves until the mode is [`Mode::Stopped`] or nobody can change it any more.
pub(super) async fn run(
    listener: TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    server: Arc<ApiServer>,
    mut mode: watch::Receiver<Mode>,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            changed = mode.changed() => {
                let now = *mode.borrow_and_update();
                match now {
                    _ if changed.is_err() => break,
                    Mode::Stopped => break,
                    Mode::Closed => {
                        listener = None;
                        connections.abort_all();
                    }
                    Mode::Open if listener.is_none() => listener = Some(rebind(address).await),
                    Mode::Open => {}
                }
            }
            accepted = accept(listener.as_ref()) => {
                connections.spawn(connection(accepted, acceptor.clone(), Arc::clone(&server)));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    connections.shutdown().await;
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                // Out of file descriptors, mostly: others must end before accepting works again.
                tracing::warn!(error = %error, "could not accept a connection");
                tokio::time::sleep(REBIND).await;
            }
        }
    }
}

async fn rebind(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                tracing::warn!(error = %error, address = %address, "could not listen again");
                tokio::time::sleep(REBIND).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, server: Arc<ApiServer>) {
    let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
    let stream = match handshake.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(error = %error, "TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let service = service_fn(move |request| service::answer(Arc::clone(&server), request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(error = %error, "connection ended");
    }
}
