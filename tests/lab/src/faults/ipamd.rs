//! A double of the VPC CNI's daemon that is there and does not work.
//!
//! ipamd answers about itself on a port of the node's own loopback address. Process nodes have that of
//! this machine, all of them, those of other labs too: it breaks everybody's, for as long as it is laid.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Where ipamd answers about itself.
const ADDRESS: (&str, u16) = ("127.0.0.1", 61679);

/// How long another lab may have the port, and between two tries.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

const ANSWER: &[u8] =
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// The double, while anybody holds it.
#[derive(Clone, Debug)]
pub struct Ipamd(#[expect(dead_code, reason = "its end closes the port")] Arc<Listening>);

#[derive(Debug)]
struct Listening(JoinHandle<()>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Ipamd {
    /// One that answers every question with 500.
    ///
    /// # Errors
    /// When its port is not to be had.
    pub(super) async fn ill() -> io::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        let listener = loop {
            match TcpListener::bind(ADDRESS).await {
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline =>
                {
                    sleep(PAUSE).await;
                }
                bound => break bound?,
            }
        };
        let serve = async move {
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(refuse(stream));
                }
            }
        };
        Ok(Self(Arc::new(Listening(tokio::spawn(serve)))))
    }
}

async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    let mut head = [0; 1024];
    // Whatever of the question has come: the answer is the same to all.
    let _some = stream.read(&mut head).await?;
    stream.write_all(ANSWER).await
}
