//! Runs programs with a deadline, and keeps what they said.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::time::timeout;

/// How long a program may take after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Where the workspace's programs are, and the environment that they get.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The repository's root, which every program runs in.
    pub root: PathBuf,
    /// The folder of the built programs.
    pub bin: PathBuf,
    /// Variables on top of our own environment.
    pub env: Vec<(String, String)>,
}

/// A program that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Exit code; 128 + n when signal n ended it, as a shell says.
    pub code: i32,
    /// Standard output, when it was captured.
    pub stdout: String,
    /// Standard error, when it was captured.
    pub stderr: String,
}

/// What becomes of a program's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Both streams go to ours.
    Shown,
    /// Standard output is captured, standard error goes to ours.
    DataCaptured,
    /// Both streams are captured.
    Captured,
}

impl Programs {
    /// The programs beside the one that is running, or in the folder above it (tests).
    ///
    /// # Errors
    /// When our own path is unknown or `control` is in neither folder: `make build` makes it.
    pub fn of_this_build() -> anyhow::Result<Self> {
        let me = std::env::current_exe().context("could not find this program's own path")?;
        let bin = me
            .ancestors()
            .skip(1)
            .take(2)
            .find(|dir| dir.join("control").is_file() && dir.join("lab").is_file())
            .with_context(|| {
                format!("no `control` and `lab` beside `{}`: make build", me.display())
            })?
            .to_owned();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("no root")?;
        Ok(Self { root: root.to_owned(), bin, env: Vec::new() })
    }

    /// Runs `program` with `args` and waits for its end.
    ///
    /// # Errors
    /// When it cannot be started, or has not ended after `limit`; then it is gone as well.
    pub async fn run(
        &self,
        program: &str,
        args: &[&str],
        output: Output,
        limit: Duration,
    ) -> anyhow::Result<Finished> {
        let piped = |captured| if captured { Stdio::piped() } else { Stdio::inherit() };
        let child = Command::new(self.bin.join(program))
            .args(args)
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .current_dir(&self.root)
            .stdin(Stdio::null())
            .stdout(piped(output != Output::Shown))
            .stderr(piped(output == Output::Captured))
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("could not start `{program}`"))?;
        let pid = child.id();
        let mut waiting = std::pin::pin!(child.wait_with_output());
        let ended = match timeout(limit, &mut waiting).await {
            Ok(ended) => ended,
            Err(_) => {
                if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
                    kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
                }
                timeout(GRACE, &mut waiting).await.ok();
                bail!("`{program} {}` has not ended after {} s", args.join(" "), limit.as_secs());
            }
        }
        .with_context(|| format!("could not wait for `{program}`"))?;
        Ok(Finished {
            code: exit_code(ended.status),
            stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
        })
    }
}

/// The exit code as a shell says it.
pub(crate) fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

impl Finished {
    /// Standard output as JSON.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("not JSON: `{}`, beside it `{}`", self.stdout, self.stderr))
    }

    /// Asks for an exit code.
    ///
    /// # Errors
    /// When the program ended with another one.
    pub fn expect(self, code: contract::ExitCode) -> anyhow::Result<Self> {
        let wanted = code as i32;
        if self.code == wanted {
            return Ok(self);
        }
        bail!(
            "exit code {} where {wanted} ({code:?}) was expected\n{}{}",
            self.code,
            self.stdout,
            self.stderr
        )
    }
}
