//! Runs Packer. It is a child in a process group of its own: an interrupt comes to us alone, we hand it on
//! once, and give Packer time to take its instance down. Whatever it leaves, [`leftovers`] removes.
//!
//! [`leftovers`]: crate::ami::leftovers

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use contract::ExitCode;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::ami::packer_log::{Said, read};
use crate::failure::Advice;
use crate::stack::Interrupt;

/// The longest a build takes: a slow instance and a large snapshot are done within half of it.
pub const LONGEST: Duration = Duration::from_secs(60 * 60);
/// Time that Packer gets to take down what it runs, once it was asked to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(180);
/// What was said before it ended is read within this, even where something that it started lives on and
/// holds its streams open.
const DRAINS_WITHIN: Duration = Duration::from_secs(2);

/// What is run.
#[derive(Clone, Debug)]
pub struct Order {
    /// Packer.
    pub packer: PathBuf,
    /// Directory of the template.
    pub template: PathBuf,
    /// Variables, the later outranking the earlier.
    pub var_files: Vec<PathBuf>,
    /// Single variables over those, `NAME=VALUE`.
    pub vars: Vec<String>,
    /// The longest that it may take.
    pub longest: Duration,
}

/// A build that made no image.
#[derive(Debug, thiserror::Error)]
pub enum BakeError {
    /// Packer cannot be run.
    #[error("could not run `{packer}`")]
    Start {
        /// Its path.
        packer: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What it says cannot be read.
    #[error("could not follow `{packer}`")]
    Follow {
        /// Its path.
        packer: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It failed.
    #[error("the build failed: {why}")]
    Failed {
        /// Its last error, or how it ended.
        why: String,
    },
    /// It ended well and named no image.
    #[error("the build ended and named no image")]
    NoImage,
    /// It took too long.
    #[error("the build took longer than {} s", longest.as_secs())]
    TooLong {
        /// How long it may take.
        longest: Duration,
    },
    /// Somebody interrupted.
    #[error("the build was interrupted")]
    Interrupted,
}

impl Advice for BakeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Start { .. } => {
                Some("install Packer 1.11 or later, or name it with --packer".into())
            }
            Self::TooLong { .. } => Some("give it longer with --timeout".into()),
            Self::Failed { .. } => Some("the log above says why; nothing of it was kept".into()),
            Self::Follow { .. } | Self::NoImage | Self::Interrupted => None,
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Interrupted => ExitCode::Interrupted,
            Self::Start { .. } => ExitCode::PreflightBlocked,
            Self::TooLong { .. } => ExitCode::GateTimedOut,
            Self::Follow { .. } | Self::Failed { .. } | Self::NoImage => ExitCode::Error,
        }
    }
}

/// Why it is stopped before it ends by itself.
#[derive(Clone, Copy)]
enum Stop {
    Interrupted,
    TooLong,
}

/// Runs a build and tells every line of it. The id of the image that it made.
///
/// # Errors
/// [`BakeError`]. What it ran may be left.
pub async fn run(
    order: &Order,
    interrupt: &Interrupt,
    mut tell: impl FnMut(&Said),
) -> Result<String, BakeError> {
    let packer = order.packer.display().to_string();
    let follow = |source| BakeError::Follow { packer: packer.clone(), source };
    let mut child = command(order)
        .spawn()
        .map_err(|source| BakeError::Start { packer: packer.clone(), source })?;
    let mut lines = lines(&mut child);
    let mut end = Instant::now() + order.longest;
    let (mut stop, mut status) = (None, None);
    let (mut made, mut error) = (None, None);
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            ended = child.wait(), if status.is_none() => {
                status = Some(ended.map_err(follow)?);
                end = Instant::now() + DRAINS_WITHIN;
                continue;
            }
            () = interrupt.raised(), if stop.is_none() && status.is_none() => {
                stop = Some(Stop::Interrupted);
                end = ask_to_stop(&child);
                continue;
            }
            () = tokio::time::sleep_until(end) => match (status, stop) {
                (Some(_), _) => break,
                (None, None) => {
                    stop = Some(Stop::TooLong);
                    end = ask_to_stop(&child);
                    continue;
                }
                // It was asked, and had its time.
                (None, Some(_)) => {
                    child.start_kill().map_err(follow)?;
                    break;
                }
            },
        };
        let Some(line) = line else { break };
        let said = read(&line);
        tell(&said);
        match said {
            Said::Made { image, .. } => made = Some(image),
            Said::Error(text) => error = Some(text),
            Said::Step(_) | Said::Detail(_) | Said::Nothing => {}
        }
    }
    let status = match status {
        Some(status) => status,
        None => ended_within(&mut child, STOPS_WITHIN).await.map_err(follow)?,
    };
    match stop {
        Some(Stop::Interrupted) => Err(BakeError::Interrupted),
        Some(Stop::TooLong) => Err(BakeError::TooLong { longest: order.longest }),
        None => ended(status, error, made),
    }
}

/// Its streams are closed: it is about to end, or it is killed.
async fn ended_within(child: &mut Child, limit: Duration) -> std::io::Result<ExitStatus> {
    if let Ok(status) = timeout(limit, child.wait()).await {
        return status;
    }
    child.start_kill()?;
    child.wait().await
}

fn ended(
    status: ExitStatus,
    error: Option<String>,
    made: Option<String>,
) -> Result<String, BakeError> {
    if status.success() {
        return made.ok_or(BakeError::NoImage);
    }
    let first = error.as_deref().and_then(|text| text.lines().next()).map(str::to_owned);
    Err(BakeError::Failed { why: first.unwrap_or_else(|| format!("Packer ended with {status}")) })
}

fn command(order: &Order) -> Command {
    let mut command = Command::new(&order.packer);
    command.args(["build", "-machine-readable", "-color=false"]);
    for file in &order.var_files {
        command.arg(format!("-var-file={}", file.display()));
    }
    for var in &order.vars {
        command.args(["-var", var]);
    }
    command.arg(&order.template);
    // No call home, and no question that nobody answers.
    command.env("CHECKPOINT_DISABLE", "1").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    command
}

/// Every line of both streams, until both are closed.
fn lines(child: &mut Child) -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel(64);
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(hand_on(stdout, send.clone()));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(hand_on(stderr, send));
    }
    lines
}

/// Bytes that are no UTF-8 come from provisioners, too: they end no build.
async fn hand_on(stream: impl AsyncRead + Unpin, to: mpsc::Sender<String>) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        if to.send(String::from_utf8_lossy(&line).into_owned()).await.is_err() {
            return;
        }
        line.clear();
    }
}

/// SIGINT to its whole group, as a terminal sends it: the process that we have started leaves the taking down to
/// the one that it has started. When it must have ended.
fn ask_to_stop(child: &Child) -> Instant {
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // It may just have ended.
        let _ = killpg(Pid::from_raw(id), Signal::SIGINT);
    }
    Instant::now() + STOPS_WITHIN
}

#[cfg(test)]
mod tests;
