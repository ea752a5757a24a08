//! The canary: has every GPU fill and copy some memory through CUDA, before anything else may use it.
//!
//! Three parties. [`ask`] is the join's part: it has PID 1 run `rollcall-canary.service` and reads what
//! that has left. [`serve`] is the unit's own: CUDA needs device nodes that the join's sandbox cannot
//! name, and a call may hang in the driver, so it is a process of its own that writes down what it is
//! about to do. What follows is said in [`super::checks`].

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use contract::ErrorChain;
use contract::names::{CANARY_RESULT_PATH, UNIT_CANARY};
use nvml_ext::cuda::{Cuda, CudaDevice};
use serde::{Deserialize, Serialize};

use super::{library, pci};
use crate::host::exec::ExecError;
use crate::host::files::{self, FileError};
use crate::host::systemd::Systemd;
use crate::host::{Deadline, Root};

/// How long CUDA may take before the join calls it a hang: eight GPUs are opened one after the other.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Words that each GPU fills and copies: 1 MiB.
const WORDS: usize = 1 << 18;
/// How much of the unit's log says why it could not be run.
const LOG_LINES: u32 = 3;

/// What the canary has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Canary {
    /// Nobody has asked for it.
    #[default]
    NotAsked,
    /// It could not be run, and why.
    NotRun(String),
    /// It has ended.
    Ended(Progress),
    /// It has not.
    Hung {
        /// How far it has come.
        progress: Progress,
        /// How long it had.
        after: Duration,
    },
}

/// How far it has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What it is about to do: `cuInit`, `the GPU at 0000:53:00.0`.
    pub asking: String,
    /// The GPUs that have computed, or said why they do not.
    pub gpus: Vec<Computed>,
    /// Why no GPU can be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Computed {
    /// PCI address.
    pub pci: String,
    /// What went wrong; none: the bytes that came back are those that were sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Has PID 1 run the canary, never later than the deadline.
pub async fn ask(root: &Root, deadline: Deadline) -> Canary {
    let deadline = deadline.at_most(PATIENCE);
    let (result, systemd) = (root.path(CANARY_RESULT_PATH), Systemd::new(root.clone()));
    if let Err(error) = files::remove(&result) {
        return Canary::NotRun(ErrorChain(&error).to_string());
    }
    let start = Instant::now();
    let ended = systemd.start(UNIT_CANARY, deadline).await;
    let progress = read(&result);
    match (ended, progress) {
        (Ok(output), Some(progress)) if output.success() => Canary::Ended(progress),
        (Ok(_), _) => {
            let log = systemd.tail(UNIT_CANARY, LOG_LINES).await;
            Canary::NotRun(format!("`{UNIT_CANARY}` has failed: {}", log.join("; ")))
        }
        (Err(ExecError::TimedOut { .. }), progress) => {
            // The next look must not join this one's job.
            if let Err(error) = systemd.stop_soon(UNIT_CANARY).await {
                tracing::warn!(error = %ErrorChain(&error), "the canary was not stopped");
            }
            Canary::Hung { progress: progress.unwrap_or_default(), after: start.elapsed() }
        }
        (Err(error), _) => Canary::NotRun(ErrorChain(&error).to_string()),
    }
}

fn read(result: &std::path::Path) -> Option<Progress> {
    serde_json::from_slice(&files::read(result).ok()?).ok()
}

/// The unit's end. That a GPU does not compute is what it says, and no failure of its own.
#[must_use]
pub fn serve(root: &Root) -> ExitCode {
    match Singer::new(root).and_then(|mut singer| singer.sing(root)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %ErrorChain(&error), "the canary cannot be heard");
            contract::ExitCode::Error.into()
        }
    }
}

struct Singer {
    result: PathBuf,
    progress: Progress,
}

impl Singer {
    fn new(root: &Root) -> Result<Self, FileError> {
        let result = root.path(CANARY_RESULT_PATH);
        // systemd has made it on a node.
        files::make_dir(result.parent().unwrap_or(&result), 0o755)?;
        Ok(Self { result, progress: Progress::default() })
    }

    fn sing(&mut self, root: &Root) -> Result<(), FileError> {
        let Some(library) = library::to_load_of(root, library::CUDA) else {
            self.progress.error = Some(format!("there is no {}", library::CUDA));
            return self.say();
        };
        self.about_to("cuInit")?;
        let opened = Cuda::open(&library).and_then(|cuda| Ok((cuda.devices()?, cuda)));
        let (devices, cuda) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.progress.error = Some(ErrorChain(&error).to_string());
                return self.say();
            }
        };
        for device in devices {
            self.try_one(&cuda, device)?;
        }
        self.about_to("")
    }

    fn try_one(&mut self, cuda: &Cuda, device: CudaDevice) -> Result<(), FileError> {
        let pci = match cuda.address(device) {
            Ok(address) => pci::normalize(&address),
            Err(error) => {
                self.progress.error = Some(ErrorChain(&error).to_string());
                return self.say();
            }
        };
        self.about_to(&format!("the GPU at {pci}"))?;
        let error = cuda.prove(device, WORDS).err().map(|error| ErrorChain(&error).to_string());
        self.progress.gpus.push(Computed { pci, error });
        self.say()
    }

    fn about_to(&mut self, what: &str) -> Result<(), FileError> {
        what.clone_into(&mut self.progress.asking);
        self.say()
    }

    fn say(&self) -> Result<(), FileError> {
        let mut bytes = serde_json::to_vec(&self.progress).unwrap_or_default();
        bytes.push(b'\n');
        files::write_for_this_boot(&self.result, &bytes, 0o644)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A node whose PID 1 does this.
    fn node(script: &str) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        for folder in ["/usr/bin", "/run/rollcall-canary"] {
            fs::create_dir_all(root.path(folder)).unwrap();
        }
        let text = format!("#!/bin/sh\ncd {}\n{script}\n", directory.path().display());
        let systemctl = root.path("/usr/bin/systemctl");
        fs::write(&systemctl, text).unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        (directory, root)
    }

    fn soon() -> Deadline {
        Deadline::within(Duration::from_secs(30))
    }

    #[tokio::test]
    async fn what_the_unit_leaves_is_what_it_has_come_to() {
        let said = r#"{"asking":"","gpus":[{"pci":"0000:53:00.0","error":"x"}]}"#;
        let (_directory, root) = node(&format!("echo '{said}' >run/rollcall-canary/result.json"));
        let Canary::Ended(progress) = ask(&root, soon()).await else { panic!() };
        assert_eq!(progress.gpus[0].error.as_deref(), Some("x"));
    }

    #[tokio::test]
    async fn an_old_song_is_not_taken_for_a_new_one() {
        let (_directory, root) = node("exit 5");
        fs::write(root.path(CANARY_RESULT_PATH), r#"{"asking":"","gpus":[]}"#).unwrap();
        let canary = ask(&root, soon()).await;
        assert!(matches!(&canary, Canary::NotRun(why) if why.contains(UNIT_CANARY)), "{canary:?}");
    }

    #[tokio::test]
    async fn one_that_hangs_is_stopped_and_says_where() {
        let said = r#"{"asking":"cuInit","gpus":[]}"#;
        let (directory, root) = node(&format!(
            "echo \"$@\" >>asked; [ $1 = start ] || exit 0; echo '{said}' >run/rollcall-canary/result.json; exec sleep 60"
        ));
        let canary = ask(&root, Deadline::within(Duration::from_millis(700))).await;
        let Canary::Hung { progress, .. } = canary else { panic!("{canary:?}") };
        assert_eq!(progress.asking, "cuInit");
        let asked = fs::read_to_string(directory.path().join("asked")).unwrap();
        assert_eq!(asked.lines().last(), Some(format!("stop --no-block {UNIT_CANARY}").as_str()));
    }

    #[test]
    fn without_the_library_no_gpu_is_asked() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        fs::create_dir_all(root.path("/run")).unwrap();
        let _ = serve(&root);
        let progress = read(&root.path(CANARY_RESULT_PATH)).unwrap();
        assert_eq!(progress.error.as_deref(), Some("there is no libcuda.so.1"));
    }
}
