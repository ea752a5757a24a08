//! The emulator's process: started with everything it needs, ended when its supervisor ends.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::record::Options;
use crate::aws::{Credentials, Emulator};
use crate::directory::LabDirectory;
use crate::gear::NodesGear;
use crate::processes::{self, ProcessId};

/// Loading moto takes seconds on a busy machine; more is a fault.
const START: Duration = Duration::from_secs(45);

/// Why the emulator does not serve.
#[derive(Debug, Error)]
pub enum StartError {
    /// It could not be started.
    #[error(
        "could not start `{python}`: make setup makes it, --python or LAB_PYTHON names another"
    )]
    Spawn {
        /// The interpreter.
        python: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It ended, or said something else, before it served.
    #[error("the emulator did not come up ({why}); `{log}` ends with: {tail}")]
    NotServing {
        /// What was seen.
        why: String,
        /// Its log.
        log: String,
        /// The log's end.
        tail: String,
    },
}

/// The running emulator. It ends by itself once its standard input closes.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    _stdin: Option<ChildStdin>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hello {
    port: u16,
    access_key_id: String,
    secret_access_key: String,
    region: String,
}

/// Starts the emulator and waits until it serves.
pub(super) async fn start(
    directory: &LabDirectory,
    options: &Options,
    kubernetes: &str,
    ca: &Path,
) -> Result<(Process, Emulator), StartError> {
    let spawn_error =
        |source| StartError::Spawn { python: options.python.display().to_string(), source };
    let log = File::create(directory.emulator_log()).map_err(spawn_error)?;
    let mut child = Command::new(&options.python)
        .args(["-m", "rollcall_emulator", "--port", "0", "--state-dir"])
        .arg(directory.path())
        .args(["--speed", &options.speed.to_string(), "--kubernetes-endpoint", kubernetes])
        .arg("--kubernetes-ca")
        .arg(ca)
        // Machines have disks, which images are made of.
        .args((options.nodes == NodesGear::Machine).then_some("--disks"))
        .current_dir(&options.emulator)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .map_err(spawn_error)?;
    let stdin = child.stdin.take();
    let hello = hello(&mut child).await.map_err(|why| StartError::NotServing {
        why,
        log: directory.emulator_log().display().to_string(),
        tail: tail(&directory.emulator_log()),
    })?;
    let operator = Credentials {
        access_key_id: hello.access_key_id,
        secret_access_key: hello.secret_access_key,
        session_token: None,
    };
    let endpoint = format!("http://127.0.0.1:{}", hello.port);
    Ok((Process { child, _stdin: stdin }, Emulator::new(endpoint, hello.region, operator)))
}

/// The one line that says where it serves.
async fn hello(child: &mut Child) -> Result<Hello, String> {
    let stdout = child.stdout.take().ok_or("no output")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = tokio::time::timeout(START, lines.next_line())
        .await
        .map_err(|_| format!("silent for {} s", START.as_secs()))?
        .map_err(|error| error.to_string())?;
    let Some(line) = line else {
        let ended = child.wait().await.map_err(|error| error.to_string())?;
        return Err(ended.to_string());
    };
    // Whatever it prints later is read, so that it never blocks on a full pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    serde_json::from_str(&line).map_err(|error| format!("it said `{line}`: {error}"))
}

/// The last lines of a log.
pub(super) fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    match lines.as_slice() {
        [] => "nothing".to_owned(),
        lines => format!("\n{}", lines[lines.len().saturating_sub(12)..].join("\n")),
    }
}

impl Process {
    /// Its pid; 0 once it has ended.
    pub(super) fn pid(&self) -> i32 {
        self.child.id().map_or(0, u32::cast_signed)
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Ends it.
    pub(super) async fn end(mut self) -> Vec<ProcessId> {
        let id = ProcessId::of(self.pid());
        let left = processes::end(id.as_slice(), Duration::from_secs(5)).await;
        let _ = self.child.try_wait();
        left
    }
}
