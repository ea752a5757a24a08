//! Programs of the node, run with a deadline and their output captured.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout_at;

use super::Deadline;

/// What is kept of each of a program's two outputs; the rest is read and dropped.
pub const OUTPUT_MAX: usize = 256 * 1024;

/// How long a killed program is waited for before it is left alone: one that hangs in a driver
/// cannot die.
const GRACE: Duration = Duration::from_secs(1);

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Standard output, at most [`OUTPUT_MAX`] bytes.
    pub stdout: String,
    /// Standard error, at most [`OUTPUT_MAX`] bytes.
    pub stderr: String,
}

impl Output {
    /// Whether it ended with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }
}

/// What a program is given besides its arguments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Feed<'a> {
    /// Variables on top of the agent's own.
    pub environment: &'a [(&'a str, &'a str)],
    /// What it reads from its standard input.
    pub input: &'a str,
}

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It could not be started.
    #[error("could not run `{}`", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It did not end before the deadline and was killed, or left alone where it could not be.
    #[error("`{}` did not end within {:.1} s", program.display(), after.as_secs_f64())]
    TimedOut {
        /// The program.
        program: PathBuf,
        /// How long it had.
        after: Duration,
        /// Whether it is gone; one that hangs in the kernel is not.
        reaped: bool,
    },
}

/// Runs a program to its end, or to the deadline.
///
/// It gets no input and the environment of the agent. A program that outlives the deadline is
/// killed, and abandoned when it does not die within a second.
///
/// # Errors
/// When it cannot be started, or does not end in time.
pub async fn run<A: AsRef<OsStr>>(
    program: &Path,
    arguments: &[A],
    deadline: Deadline,
) -> Result<Output, ExecError> {
    run_fed(program, arguments, &Feed::default(), deadline).await
}

/// The same, with something to read and variables of its own.
///
/// # Errors
/// As [`run`].
pub async fn run_fed<A: AsRef<OsStr>>(
    program: &Path,
    arguments: &[A],
    feed: &Feed<'_>,
    deadline: Deadline,
) -> Result<Output, ExecError> {
    let given = deadline.remaining();
    let fail = |source| ExecError::Spawn { program: program.to_owned(), source };
    let mut child = Command::new(program)
        .args(arguments)
        .envs(feed.environment.iter().copied())
        .stdin(if feed.input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(fail)?;
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let stdin = child.stdin.take();
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input says so by how it ends.
            let _ = stdin.write_all(feed.input.as_bytes()).await;
        }
    };
    let finish =
        async { tokio::join!(child.wait(), read_capped(stdout), read_capped(stderr), write) };
    match timeout_at(deadline.instant(), finish).await {
        Ok((status, stdout, stderr, ())) => {
            use std::os::unix::process::ExitStatusExt as _;
            let status = status.map_err(fail)?;
            Ok(Output { code: status.code(), signal: status.signal(), stdout, stderr })
        }
        Err(_) => {
            let reaped = kill(&mut child).await;
            Err(ExecError::TimedOut { program: program.to_owned(), after: given, reaped })
        }
    }
}

async fn kill(child: &mut Child) -> bool {
    // It fails only for a child that has already ended.
    let _ = child.start_kill();
    tokio::time::timeout(GRACE, child.wait()).await.is_ok()
}

async fn read_capped(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let mut kept = Vec::new();
    let mut buffer = [0; 8192];
    // Read on past the cap: a full pipe would block the program.
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let room = OUTPUT_MAX - kept.len();
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, seconds: f64) -> Result<Output, ExecError> {
        let deadline = Deadline::within(Duration::from_secs_f64(seconds));
        run(Path::new("/bin/sh"), &["-c", script], deadline).await
    }

    #[tokio::test]
    async fn captures_both_outputs_and_the_code() {
        let output = sh("echo out; echo err >&2; exit 3", 10.0).await.unwrap();
        assert_eq!((output.code, output.signal), (Some(3), None));
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
        assert!(!output.success());
        assert_eq!(sh("kill -9 $$", 10.0).await.unwrap().signal, Some(9));
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_at_the_deadline() {
        let start = std::time::Instant::now();
        let error = sh("exec sleep 60", 0.2).await.unwrap_err();
        assert!(matches!(error, ExecError::TimedOut { reaped: true, .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn more_output_than_is_kept_does_not_block() {
        let output = sh("head -c 1000000 /dev/zero; echo end >&2", 20.0).await.unwrap();
        assert_eq!(output.stdout.len(), OUTPUT_MAX);
        assert_eq!(output.stderr, "end\n");
    }

    #[tokio::test]
    async fn a_program_reads_what_it_is_fed() {
        let feed = Feed { environment: &[("WORD", "so")], input: "it is" };
        let deadline = Deadline::within(Duration::from_secs(10));
        let arguments = ["-c", "cat; echo \" $WORD\""];
        let output = run_fed(Path::new("/bin/sh"), &arguments, &feed, deadline).await.unwrap();
        assert_eq!(output.stdout, "it is so\n");
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let deadline = Deadline::within(Duration::from_secs(1));
        let error = run::<&str>(Path::new("/no/such/program"), &[], deadline).await.unwrap_err();
        assert!(error.to_string().contains("/no/such/program"));
    }
}
