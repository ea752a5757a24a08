//! A TCP relay: an address that outlives what is behind it, and a path that can be made worse, for
//! all who come or for one of them.
//!
//! EKS's endpoint is known before the API server behind it answers, and stays when that is
//! restarted. AWS's services are one process, and each has an address of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

/// How often listening again is tried when the port is not free at once.
const REBIND: Duration = Duration::from_millis(50);
/// How long a client may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Bytes that are read at once, and how many such pieces may be under way in one direction.
const PIECE: usize = 16 * 1024;
const UNDER_WAY: usize = 256;

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

/// What happens to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// They are taken, and then reset.
    Reset,
    /// What is sent arrives later, in both directions.
    Delayed(Duration),
}

/// The troubles on one path: by peer, or everybody's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Troubles(watch::Sender<BTreeMap<Option<IpAddr>, Trouble>>);

impl Troubles {
    /// Makes the path worse for a peer, or for everybody where there is none; or whole again.
    pub(crate) fn set(&self, peer: Option<IpAddr>, trouble: Option<Trouble>) {
        self.0.send_if_modified(|troubles| match trouble {
            Some(trouble) => troubles.insert(peer, trouble) != Some(trouble),
            None => troubles.remove(&peer).is_some(),
        });
    }
}

/// What one peer's connection sees of the path's troubles.
#[derive(Clone)]
struct View {
    peer: IpAddr,
    troubles: watch::Receiver<BTreeMap<Option<IpAddr>, Trouble>>,
}

impl View {
    fn now(&self) -> Option<Trouble> {
        let troubles = self.troubles.borrow();
        troubles.get(&None).or_else(|| troubles.get(&Some(self.peer))).copied()
    }

    fn delay(&self) -> Duration {
        match self.now() {
            Some(Trouble::Delayed(delay)) => delay,
            _ => Duration::ZERO,
        }
    }

    /// Waits until connections are to be reset.
    async fn is_reset(&mut self) {
        while self.now() != Some(Trouble::Reset) {
            if self.troubles.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// A relay from one address to another.
pub(crate) struct Relay {
    /// Where it listens already.
    pub(crate) listener: TcpListener,
    /// What is behind it.
    pub(crate) upstream: SocketAddr,
    /// What is wrong with the path.
    pub(crate) troubles: Troubles,
    /// Ends TLS here, where what is behind speaks none.
    pub(crate) tls: Option<TlsAcceptor>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Relay {
    /// Relays until the mode is [`Mode::Stopped`], or nobody can change it any more.
    pub(crate) async fn run(self, mut mode: watch::Receiver<Mode>) {
        let Self { listener, upstream, troubles, tls } = self;
        let Ok(listen) = listener.local_addr() else { return };
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
                (client, peer) = accept(listener.as_ref()) => {
                    let view = View { peer: peer.ip(), troubles: troubles.0.subscribe() };
                    connections.spawn(connection(client, upstream, tls.clone(), view));
                }
                _ = connections.join_next(), if !connections.is_empty() => {}
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> (TcpStream, SocketAddr) {
    loop {
        let Some(listener) = listener else { std::future::pending().await };
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                sleep(REBIND).await;
            }
        }
    }
}

async fn rebind(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(_) => sleep(REBIND).await,
        }
    }
}

/// One connection, until its ends or the path's troubles end it.
async fn connection(
    mut client: TcpStream,
    upstream: SocketAddr,
    tls: Option<TlsAcceptor>,
    view: View,
) {
    let _ = client.set_nodelay(true);
    let mut watched = view.clone();
    tokio::select! {
        biased;
        () = watched.is_reset() => {}
        () = carry(&mut client, upstream, tls, view) => return,
    }
    // Without lingering the kernel sends a reset instead of an orderly end.
    let _ = client.set_zero_linger();
}

async fn carry(client: &mut TcpStream, upstream: SocketAddr, tls: Option<TlsAcceptor>, view: View) {
    let Some(tls) = tls else { return between(client, upstream, view).await };
    sleep(view.delay()).await;
    if let Ok(Ok(client)) = timeout(HANDSHAKE, tls.accept(client)).await {
        between(client, upstream, view).await;
    }
}

/// Without anything behind it the connection ends at once, as behind a load balancer with no
/// target.
async fn between<C: AsyncRead + AsyncWrite>(client: C, upstream: SocketAddr, view: View) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let _ = server.set_nodelay(true);
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = server.into_split();
    // How a connection ends is for its two ends to tell.
    let _ =
        tokio::try_join!(pump(from_client, to_server, &view), pump(from_server, to_client, &view));
}

/// Carries one direction. A delay holds each piece back for as long, and so changes when bytes
/// arrive but not how many may be under way.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    view: &View,
) -> std::io::Result<()> {
    let (queue, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let read = async move {
        loop {
            let mut piece = vec![0; PIECE];
            let length = from.read(&mut piece).await?;
            piece.truncate(length);
            if length == 0 || queue.send((Instant::now() + view.delay(), piece)).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = pieces.recv().await {
            if due > Instant::now() {
                sleep_until(due).await;
            }
            to.write_all(&piece).await?;
            to.flush().await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

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

    async fn relay() -> (SocketAddr, Troubles, watch::Sender<Mode>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let troubles = Troubles::default();
        let (mode, receiver) = watch::channel(Mode::Open);
        let relay =
            Relay { listener, upstream: echo().await, troubles: troubles.clone(), tls: None };
        (address, troubles, mode, tokio::spawn(relay.run(receiver)))
    }

    #[tokio::test]
    async fn what_is_closed_refuses_and_opens_again_on_the_same_port() {
        let (listen, _troubles, mode, task) = relay().await;
        assert_eq!(ask(listen).await.unwrap(), "ping");

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
        timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_reset_is_one_and_reaches_what_is_open_already() {
        let (listen, troubles, _mode, _task) = relay().await;
        let mut open = TcpStream::connect(listen).await.unwrap();
        open.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        open.read_exact(&mut answer).await.unwrap();

        troubles.set(None, Some(Trouble::Reset));
        let error = open.read_exact(&mut answer).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(ask(listen).await.is_err());
        troubles.set(None, None);
        assert_eq!(ask(listen).await.unwrap(), "ping");
    }

    #[tokio::test]
    async fn another_peers_troubles_are_not_ours_and_a_delay_is_waited_for() {
        let (listen, troubles, _mode, _task) = relay().await;
        troubles.set(Some("192.0.2.1".parse().unwrap()), Some(Trouble::Reset));
        assert_eq!(ask(listen).await.unwrap(), "ping");

        let delay = Duration::from_millis(150);
        troubles.set(Some(ME), Some(Trouble::Delayed(delay)));
        let began = Instant::now();
        assert_eq!(ask(listen).await.unwrap(), "ping");
        // Held back once on the way there and once on the way back.
        assert!(began.elapsed() >= delay * 2, "{:?}", began.elapsed());
    }
}
