//! Whether a place can be reached over TCP: directly, or through the proxy that leads there.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use url::Url;

use crate::host::Deadline;

/// How long one name may take to resolve, one address to connect, and a proxy to answer.
const RESOLVE: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(5);

/// How much of a proxy's answer is read: its first line is enough.
const HEAD_MAX: usize = 1024;

/// Why a place was not reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreached {
    /// Its name does not resolve.
    NoAddress {
        /// The name.
        host: String,
        /// Why.
        why: String,
    },
    /// No connection to any of its addresses.
    NoConnection {
        /// Host and port.
        target: String,
        /// Each address and what became of it.
        tried: Vec<(IpAddr, String)>,
    },
    /// The proxy before it is the trouble.
    Proxy {
        /// Host and port of the proxy.
        proxy: String,
        /// What is wrong with it.
        what: String,
    },
    /// The proxy works, and does not get there itself.
    BeyondProxy {
        /// Host and port of the proxy.
        proxy: String,
        /// Host and port behind it.
        target: String,
        /// What it answers.
        status: u16,
    },
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress { host, why } => write!(f, "`{host}` does not resolve: {why}"),
            Self::NoConnection { target, tried } => {
                write!(f, "no connection to `{target}`")?;
                tried.iter().try_for_each(|(address, why)| write!(f, "; {address}: {why}"))
            }
            Self::Proxy { proxy, what } => write!(f, "the proxy `{proxy}` {what}"),
            Self::BeyondProxy { proxy, target, status } => {
                write!(f, "the proxy `{proxy}` gets no connection to `{target}`: {status}")
            }
        }
    }
}

/// Connects to where `url` points, through `proxy` where there is one, and hangs up. Gives what
/// was connected to: host and port.
///
/// # Errors
/// As [`Unreached`] lists.
pub async fn reach(
    url: &str,
    proxy: Option<&str>,
    deadline: Deadline,
) -> Result<String, Unreached> {
    let (host, port) = host_and_port(url)
        .ok_or_else(|| Unreached::NoAddress { host: url.to_owned(), why: "it is no URL".into() })?;
    let target = format!("{host}:{port}");
    match proxy {
        None => connect(&host, port, deadline).await.map(|_| target),
        Some(proxy) => through(proxy, &target, deadline).await,
    }
}

/// Host and port of a URL.
#[must_use]
pub fn host_and_port(url: &str) -> Option<(String, u16)> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    Some((host, url.port_or_known_default()?))
}

/// Connects to the first address that lets us.
async fn connect(host: &str, port: u16, deadline: Deadline) -> Result<TcpStream, Unreached> {
    let no_address = |why: String| Unreached::NoAddress { host: host.to_owned(), why };
    let limit = deadline.remaining().min(RESOLVE);
    let addresses: Vec<SocketAddr> = match timeout(limit, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Err(no_address(error.to_string())),
        Err(_) => return Err(no_address(no_answer(limit))),
    };
    if addresses.is_empty() {
        return Err(no_address("it has no address".into()));
    }
    let mut tried = Vec::new();
    for address in addresses {
        let limit = deadline.remaining().min(CONNECT);
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => tried.push((address.ip(), error.to_string())),
            Err(_) => tried.push((address.ip(), no_answer(limit))),
        }
    }
    Err(Unreached::NoConnection { target: format!("{host}:{port}"), tried })
}

fn no_answer(limit: Duration) -> String {
    format!("no answer within {:.1} s", limit.as_secs_f64())
}

/// Has the proxy connect to `target`, as Go's HTTP client does for https.
async fn through(proxy: &str, target: &str, deadline: Deadline) -> Result<String, Unreached> {
    let Some((host, port)) = host_and_port(proxy) else {
        // The URL may hold a password: it is not shown.
        let what = "cannot be used: HTTPS_PROXY is no URL".to_owned();
        return Err(Unreached::Proxy { proxy: String::new(), what });
    };
    let name = format!("{host}:{port}");
    let ill = |what: String| Unreached::Proxy { proxy: name.clone(), what };
    let mut stream = match connect(&host, port, deadline).await {
        Ok(stream) => stream,
        Err(Unreached::NoAddress { why, .. }) => {
            return Err(ill(format!("does not resolve: {why}")));
        }
        Err(error) => return Err(ill(format!("cannot be connected to: {error}"))),
    };
    let reached = Ok(format!("{target} through the proxy {name}"));
    if !proxy.starts_with("http://") {
        // Over TLS or SOCKS: that something listens is all that can be said here.
        return reached;
    }
    let limit = deadline.remaining().min(ANSWER);
    let status = match timeout(limit, ask(&mut stream, proxy, target)).await {
        Ok(Ok(Some(status))) => status,
        Ok(Ok(None)) => return Err(ill("does not speak HTTP".into())),
        Ok(Err(error)) => return Err(ill(format!("hangs up on `CONNECT {target}`: {error}"))),
        Err(_) => return Err(ill(format!("gives {} to `CONNECT {target}`", no_answer(limit)))),
    };
    match status {
        200..=299 => reached,
        407 => Err(ill("asks for a user and a password (407)".into())),
        500..=599 => Err(Unreached::BeyondProxy { proxy: name, target: target.to_owned(), status }),
        status => Err(ill(format!("refuses `CONNECT {target}` with {status}"))),
    }
}

async fn ask(stream: &mut TcpStream, proxy: &str, target: &str) -> std::io::Result<Option<u16>> {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Ok(url) = Url::parse(proxy)
        && !url.username().is_empty()
    {
        let decode = |text: &str| {
            percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
        };
        let (user, password) = (decode(url.username()), decode(url.password().unwrap_or_default()));
        let given = STANDARD.encode(format!("{user}:{password}"));
        request += &format!("Proxy-Authorization: Basic {given}\r\n");
    }
    stream.write_all(format!("{request}\r\n").as_bytes()).await?;
    let mut head = Vec::new();
    while !head.contains(&b'\n') && head.len() < HEAD_MAX {
        let mut part = [0; 256];
        match stream.read(&mut part).await? {
            0 => break,
            count => head.extend_from_slice(&part[..count]),
        }
    }
    if head.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let line = String::from_utf8_lossy(&head);
    let mut words = line.split_whitespace();
    let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/"));
    Ok(words.next().filter(|_| is_http).and_then(|status| status.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::http::{Answer, Server};

    async fn reached(url: &str, proxy: Option<&str>) -> Result<String, String> {
        let deadline = Deadline::within(Duration::from_secs(2));
        reach(url, proxy, deadline).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn says_how_far_it_came() {
        let server = Server::start(|_| Answer::ok("")).await;
        assert!(reached(&server.url(), None).await.is_ok());
        let refused = reached("https://127.0.0.1:1", None).await.unwrap_err();
        assert!(refused.contains("no connection to `127.0.0.1:1`; 127.0.0.1: "), "{refused}");
        let nameless = reached("https://nowhere.invalid", None).await.unwrap_err();
        assert!(nameless.contains("`nowhere.invalid` does not resolve"), "{nameless}");
        assert!(reached("nonsense", None).await.unwrap_err().contains("no URL"));
    }

    #[tokio::test]
    async fn a_proxy_is_asked_as_go_asks_it() {
        let server = Server::start(|request| {
            assert!(request.starts_with("CONNECT api.example:443 HTTP/1.1\r\n"), "{request}");
            match request.contains("Proxy-Authorization: Basic dXNlcjpwQHNz\r\n") {
                true => Answer::status(200, ""),
                false => Answer::status(407, ""),
            }
        })
        .await;
        let target = "https://api.example";
        let known = server.url().replace("http://", "http://user:p%40ss@");
        assert!(reached(target, Some(&known)).await.unwrap().starts_with("api.example:443"));
        let unknown = reached(target, Some(&server.url())).await.unwrap_err();
        assert!(unknown.contains("a user and a password"), "{unknown}");
    }

    #[tokio::test]
    async fn a_proxys_own_trouble_is_told_from_what_lies_behind_it() {
        for (status, says) in
            [(403, "refuses `CONNECT"), (502, "gets no connection to `api.example:443`: 502")]
        {
            let server = Server::start(move |_| Answer::status(status, "")).await;
            let error = reached("https://api.example", Some(&server.url())).await.unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        for (proxy, says) in [
            ("http://127.0.0.1:1", "the proxy `127.0.0.1:1` cannot be connected to"),
            ("http://user:s3cr3t@nowhere.invalid:3128", "does not resolve"),
            ("://user:s3cr3t@", "no URL"),
        ] {
            let error = reached("https://api.example", Some(proxy)).await.unwrap_err();
            assert!(error.contains(says), "{error}");
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }

    #[test]
    fn finds_host_and_port() {
        assert_eq!(host_and_port("https://a.example"), Some(("a.example".into(), 443)));
        assert_eq!(host_and_port("http://[::1]:8080/x"), Some(("::1".into(), 8080)));
        assert_eq!(host_and_port("nonsense"), None);
    }
}
