//! Scrapes the metrics of a process node's watch, where it listens on the node's own address.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use contract::names::METRICS_PORT;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::systemctl_double::state::Store;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Says a node's address in its environment.
const ADDRESS: &str = "ROLLCALL_NODE_ADDRESS";

/// What the node at `root` says of itself.
///
/// # Errors
/// When nothing answers.
pub async fn scrape(root: &Path) -> anyhow::Result<String> {
    let environment = Store::of(root).environment();
    let address = environment.into_iter().find(|(key, _)| key == ADDRESS);
    let (_, address) = address.context("the node has no address")?;
    let asking = async {
        let mut stream = TcpStream::connect(format!("{address}:{METRICS_PORT}")).await?;
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await;
    answer.context("the metrics do not answer in time")?.context("could not scrape the node")
}
