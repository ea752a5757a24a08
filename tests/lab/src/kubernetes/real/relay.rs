//! The cluster's endpoint: a TCP relay before the API server, whose port outlives it.
//!
//! EKS's endpoint is known before the API server behind it answers, and stays when that is
//! restarted. Here is also where a path is cut: for all, or for one node's address.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How often listening again is tried when the port is not free at once.
const REBIND: Duration = Duration::from_millis(50);

/// What the relay is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Accept.
    Open,
    /// Refuse, and close what is open.
    Closed,
    /// End.
    Stopped,
}

/// Peers whose connections are closed without an answer.
pub(crate) type CutOff = Arc<Mutex<HashSet<IpAddr>>>;

/// Relays until the mode is [`Mode::Stopped`].
pub(crate) async fn run(
    listener: TcpListener,
    listen: SocketAddr,
    upstream: SocketAddr,
    cut_off: CutOff,
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
                    Mode::Open if listener.is_none() => listener = Some(rebind(listen).await),
                    Mode::Open => {}
                }
            }
            accepted = accept(listener.as_ref()) => {
                let (client, peer) = accepted;
                let cut = cut_off.lock().unwrap_or_else(PoisonError::into_inner);
                if !cut.contains(&peer.ip()) {
                    connections.spawn(relay(client, upstream));
                }
            }
            _ = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> (TcpStream, SocketAddr) {
    loop {
        let Some(listener) = listener else { std::future::pending().await };
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection to the API server");
                tokio::time::sleep(REBIND).await;
            }
        }
    }
}

async fn rebind(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(_) => tokio::time::sleep(REBIND).await,
        }
    }
}

/// Without an API server the connection ends at once, as behind a load balancer with no target.
async fn relay(mut client: TcpStream, upstream: SocketAddr) {
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    // How a connection ends is for its two ends to tell.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    async fn ask(address: SocketAddr) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"ping").await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn what_is_cut_gets_no_answer_and_what_is_lifted_does() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap();
        let (mode, receiver) = watch::channel(Mode::Open);
        let cut_off = CutOff::default();
        let task = tokio::spawn(run(listener, listen, echo().await, cut_off.clone(), receiver));
        assert_eq!(ask(listen).await.unwrap(), "ping");

        cut_off.lock().unwrap().insert("127.0.0.1".parse().unwrap());
        assert_ne!(ask(listen).await.unwrap_or_default(), "ping");
        cut_off.lock().unwrap().clear();

        mode.send_replace(Mode::Closed);
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(listen).await.is_ok() {
            assert!(std::time::Instant::now() < deadline, "the port stays open");
        }
        mode.send_replace(Mode::Open);
        while ask(listen).await.unwrap_or_default() != "ping" {
            assert!(std::time::Instant::now() < deadline, "the port does not open again");
        }
        mode.send_replace(Mode::Stopped);
        tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
    }
}
