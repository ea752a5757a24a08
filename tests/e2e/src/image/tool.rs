//! Packer: one command at a time, or a build that is listened to while it runs.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::programs::exit_code;

/// The longest that a command may take which asks nobody.
const OFFLINE: Duration = Duration::from_secs(60);

/// Packer with its plugin, and the environment that both get.
#[derive(Clone, Debug)]
pub struct Packer {
    /// The folder that `tests/lab/parts/packer.sh` prints.
    pub dir: PathBuf,
    /// The repository's root.
    pub root: PathBuf,
    /// Variables on top: where AWS is, and credentials.
    pub env: Vec<(String, String)>,
}

impl Packer {
    fn command(&self, arguments: &[String]) -> Command {
        let mut command = Command::new(self.dir.join("packer"));
        command
            .args(arguments)
            .current_dir(&self.root)
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .env("PACKER_PLUGIN_PATH", self.dir.join("plugins"))
            .env("CHECKPOINT_DISABLE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs a command that asks nobody; gives its exit code and what it said.
    ///
    /// # Errors
    /// When it cannot be run or does not end.
    pub async fn offline(&self, arguments: &[&str]) -> anyhow::Result<(i32, String)> {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let what = || format!("`packer {}`", arguments.join(" "));
        let ended = tokio::time::timeout(OFFLINE, self.command(&arguments).output()).await;
        let ended = ended.with_context(|| format!("{} has not ended", what()))?;
        let ended = ended.with_context(|| format!("could not run {}", what()))?;
        let said = [ended.stdout, ended.stderr].concat();
        Ok((exit_code(ended.status), String::from_utf8_lossy(&said).into_owned()))
    }

    /// Starts a build of the production template; what it says is in a `.log` beside the variables in the end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn build(&self, variables: &Path, more: &[&str]) -> anyhow::Result<Build> {
        let mut arguments =
            vec!["build".to_owned(), "-color=false".to_owned(), "-timestamp-ui".to_owned()];
        arguments.push(format!("-var-file={}", variables.display()));
        for variable in more {
            arguments.extend(["-var".to_owned(), (*variable).to_owned()]);
        }
        arguments.push("packer".to_owned());
        // A group of its own: an interrupt is for Packer, which ends its plugins itself.
        let mut child = self.command(&arguments).process_group(0).spawn();
        let child_ref = child.as_mut().ok().context("could not start `packer build`")?;
        let said = Arc::new(Said::default());
        let readers = [
            child_ref.stdout.take().map(|stream| listen(stream, Arc::clone(&said))),
            child_ref.stderr.take().map(|stream| listen(stream, Arc::clone(&said))),
        ];
        let child = child.context("could not start `packer build`")?;
        let readers = readers.into_iter().flatten().collect();
        Ok(Build { child, said, readers, log: variables.with_extension("log") })
    }
}

/// What a build has said so far.
#[derive(Debug, Default)]
struct Said {
    text: Mutex<String>,
    more: Notify,
}

fn listen(stream: impl AsyncRead + Unpin + Send + 'static, said: Arc<Said>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut text = said.text.lock().unwrap_or_else(PoisonError::into_inner);
            text.push_str(&line);
            text.push('\n');
            drop(text);
            said.more.notify_one();
        }
    })
}

/// A build that runs.
#[derive(Debug)]
pub struct Build {
    child: Child,
    said: Arc<Said>,
    readers: Vec<JoinHandle<()>>,
    log: PathBuf,
}

impl Build {
    /// What it has said so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.said.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has said something.
    ///
    /// # Errors
    /// When it has not within `limit`.
    pub async fn says(&self, words: &str, limit: Duration) -> anyhow::Result<()> {
        let heard = async {
            while !self.said().contains(words) {
                self.said.more.notified().await;
            }
        };
        let in_time = tokio::time::timeout(limit, heard).await;
        in_time.ok().with_context(|| format!("`{words}` was not said, but\n{}", self.said()))
    }

    /// Interrupts it as Ctrl-C does: the whole group, because the process that we started leaves that to the one it has started.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn interrupt(&self) -> anyhow::Result<()> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.with_context(|| format!("it has ended already:\n{}", self.said()))?;
        ensure!(
            !ignores_interrupts(pid)?,
            "Packer was started with SIGINT ignored: nothing would be shown"
        );
        killpg(Pid::from_raw(pid), Signal::SIGINT).context("could not interrupt Packer")
    }

    /// Waits for its end; gives its exit code and what it said.
    ///
    /// # Errors
    /// When it has not ended within `limit`.
    pub async fn end(mut self, limit: Duration) -> anyhow::Result<(i32, String)> {
        let Ok(status) = tokio::time::timeout(limit, self.child.wait()).await else {
            bail!("`packer build` has not ended after {} s:\n{}", limit.as_secs(), self.said());
        };
        for reader in &mut self.readers {
            let _ = tokio::time::timeout(Duration::from_secs(5), reader).await;
        }
        let said = self.said();
        std::fs::write(&self.log, &said)
            .with_context(|| format!("could not write `{}`", self.log.display()))?;
        Ok((exit_code(status.context("could not wait for `packer build`")?), said))
    }
}

/// Whether a process was born with SIGINT ignored, as the jobs of a shell without job control are.
fn ignores_interrupts(pid: i32) -> anyhow::Result<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("could not look at process {pid}"))?;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    Ok(ignored >> (Signal::SIGINT as i32 - 1) & 1 == 1)
}
