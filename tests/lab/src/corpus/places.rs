//! Where a node can be sent to instead of its API server: places that do not answer, or answer as
//! somebody else. Entries name them as `{{silent}}`.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::kubernetes::standin::BEHIND_PROXY;

/// The places, which are there for as long as this lives.
#[derive(Debug)]
pub struct Places {
    silent: SocketAddr,
    refused: SocketAddr,
    dropped: SocketAddr,
    proxy: SocketAddr,
    other_ca: String,
    tunnels: Arc<Mutex<u64>>,
    _tasks: JoinSet<()>,
    _full: (TcpListener, Vec<TcpStream>),
}

/// What only the proxy finds, by names that do not resolve.
#[derive(Clone, Debug, Default)]
pub struct Behind {
    /// The API server, `host:port`: [`BEHIND_PROXY`].
    pub api: String,
    /// AWS, `host:port`: every other name below `behind-proxy.invalid`.
    pub aws: String,
}

impl Behind {
    /// Where a place that the proxy is asked for is.
    fn address<'a>(&'a self, place: &'a str) -> &'a str {
        let host = place.rsplit_once(':').map_or(place, |(host, _)| host);
        match host.strip_suffix(".behind-proxy.invalid") {
            Some(_) if host == BEHIND_PROXY => &self.api,
            Some(_) => &self.aws,
            None => place,
        }
    }
}

impl Places {
    /// Opens them, on loopback; the proxy knows the way to `behind`.
    ///
    /// # Errors
    /// When a port cannot be had.
    pub async fn open(behind: Behind) -> io::Result<Self> {
        let mut tasks = JoinSet::new();
        let silent = TcpListener::bind("127.0.0.1:0").await?;
        let proxy = TcpListener::bind("127.0.0.1:0").await?;
        let closed = TcpListener::bind("127.0.0.1:0").await?;
        let (full, dropped) = full().await?;
        let tunnels = Arc::new(Mutex::new(0));
        let places = Self {
            silent: silent.local_addr()?,
            refused: closed.local_addr()?,
            dropped,
            proxy: proxy.local_addr()?,
            other_ca: other_ca()?,
            tunnels: Arc::clone(&tunnels),
            _tasks: {
                tasks.spawn(say_nothing(silent));
                tasks.spawn(forward(proxy, Arc::new(behind), tunnels));
                tasks
            },
            _full: full,
        };
        Ok(places)
    }

    /// Replaces the names of places in a text.
    #[must_use]
    pub fn fill(&self, text: &str) -> String {
        [
            ("{{silent}}", self.silent.to_string()),
            ("{{refused}}", self.refused.to_string()),
            ("{{dropped}}", self.dropped.to_string()),
            ("{{proxy}}", self.proxy.to_string()),
            ("{{apiBehindProxy}}", BEHIND_PROXY.to_owned()),
            ("{{otherCa}}", self.other_ca.clone()),
        ]
        .iter()
        .fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    /// How many connections went through the proxy.
    #[must_use]
    pub fn tunnels(&self) -> u64 {
        *self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A listener whose queue is full: the kernel drops every further SYN, as a security group does.
async fn full() -> io::Result<((TcpListener, Vec<TcpStream>), SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let listener = socket.listen(1)?;
    let address = listener.local_addr()?;
    let mut filled = Vec::new();
    let patience = std::time::Duration::from_millis(300);
    while let Ok(connected) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
        filled.push(connected?);
    }
    Ok(((listener, filled), address))
}

/// Takes connections and keeps them, and never says a word.
async fn say_nothing(listener: TcpListener) {
    let mut kept = Vec::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    }
}

/// An HTTP proxy: CONNECT, and requests for whole URLs.
async fn forward(listener: TcpListener, behind: Arc<Behind>, tunnels: Arc<Mutex<u64>>) {
    let mut open = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            *tunnels.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            let behind = Arc::clone(&behind);
            open.spawn(async move { relay(stream, &behind).await.ok() });
        }
        while open.try_join_next().is_some() {}
    }
}

/// Carries one connection to what its first request names, and says nothing of its own after that.
async fn relay(mut client: TcpStream, behind: &Behind) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
        head.push(client.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head);
    let mut words = text.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let url = url::Url::parse(target).ok().filter(|url| url.scheme() == "http");
    let place = match (method, &url) {
        ("CONNECT", _) => target.to_owned(),
        (_, Some(url)) => {
            let port = url.port_or_known_default().unwrap_or_default();
            format!("{}:{port}", url.host_str().unwrap_or_default())
        }
        (_, None) => return client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await,
    };
    let Ok(mut server) = TcpStream::connect(behind.address(&place)).await else {
        return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
    };
    match &url {
        None => client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?,
        // A server takes the path alone. The connection is the client's for this server: what comes
        // after the first request is for it, too, and is closed so that it cannot come.
        Some(url) => {
            let path = &url[url::Position::BeforePath..];
            let request = text.replacen(target, path, 1).replacen("\r\n", CLOSE, 1);
            server.write_all(request.as_bytes()).await?;
        }
    }
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// After the first line of a request: the server is to end the connection when it has answered.
const CLOSE: &str = "\r\nConnection: close\r\n";

/// Base64 of the PEM of an authority that has signed nothing here.
fn other_ca() -> io::Result<String> {
    let made = || -> Result<String, rcgen::Error> {
        let key = rcgen::KeyPair::generate()?;
        let mut parameters = rcgen::CertificateParams::new(Vec::new())?;
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Ok(parameters.self_signed(&key)?.pem())
    };
    Ok(STANDARD.encode(made().map_err(io::Error::other)?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn each_place_fails_in_its_own_way() {
        let places = Places::open(Behind::default()).await.unwrap();
        let at = |name: &str| places.fill(&format!("{{{{{name}}}}}"));
        let connect = async |name: &str| {
            let patience = Duration::from_millis(500);
            tokio::time::timeout(patience, TcpStream::connect(at(name))).await
        };
        assert!(connect("dropped").await.is_err(), "a connection came about");
        assert!(connect("refused").await.unwrap().is_err());
        let mut silent = connect("silent").await.unwrap().unwrap();
        silent.write_all(b"hello").await.unwrap();
        let answer = tokio::time::timeout(Duration::from_millis(300), silent.read_u8()).await;
        assert!(answer.is_err(), "it answered");

        let mut through = connect("proxy").await.unwrap().unwrap();
        let request = format!("CONNECT {} HTTP/1.1\r\n\r\n", at("silent"));
        through.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        through.read_exact(&mut answer).await.unwrap();
        assert_eq!((&answer, places.tunnels()), (b"HTTP/1.1 200", 1));
    }

    #[test]
    fn only_the_proxy_knows_what_is_behind_it() {
        let behind = Behind { api: "127.0.0.1:1".into(), aws: "127.0.0.1:2".into() };
        for (place, address) in [
            ("api.behind-proxy.invalid:443", "127.0.0.1:1"),
            ("ec2.behind-proxy.invalid:80", "127.0.0.1:2"),
            ("127.0.0.1:3", "127.0.0.1:3"),
        ] {
            assert_eq!(behind.address(place), address);
        }
    }
}
