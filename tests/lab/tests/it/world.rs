//! A lab of the test's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A running lab; dropping it ends it.
pub(crate) struct Lab {
    directory: tempfile::TempDir,
}

/// The program under test.
pub(crate) fn lab(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lab")).args(arguments).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What these tests are about is in the gear that runs anywhere.
pub(crate) const QUICK: [&str; 4] = ["--kubernetes", "standin", "--nodes", "process"];

/// Python with the emulator's packages: make sets `LAB_PYTHON`, and make setup makes it.
pub(crate) fn python() -> PathBuf {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv/bin/python");
    let python = std::env::var_os("LAB_PYTHON").map_or(made, PathBuf::from);
    assert!(python.is_file(), "no Python at `{}`: make setup makes one", python.display());
    python
}

impl Lab {
    pub(crate) fn up(extra: &[&str]) -> Self {
        let lab = Self { directory: tempfile::tempdir().unwrap() };
        let up = lab.call(
            "up",
            &[&["--python", python().to_str().unwrap(), "--speed", "0.005"], &QUICK, extra]
                .concat(),
        );
        assert!(up.status.success(), "lab up: {}{}", text(&up.stdout), text(&up.stderr));
        lab
    }

    pub(crate) fn dir(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn call(&self, verb: &str, arguments: &[&str]) -> Output {
        let dir = self.dir().to_str().unwrap();
        lab(&[&[verb, "--dir", dir], arguments].concat())
    }

    pub(crate) fn status(&self) -> Value {
        let status = self.call("status", &["-o", "json"]);
        assert!(status.status.success(), "{}", text(&status.stderr));
        serde_json::from_slice(&status.stdout).unwrap()
    }

    pub(crate) fn record(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.dir().join("lab.json")).unwrap()).unwrap()
    }

    pub(crate) fn root(&self, instance: &str) -> PathBuf {
        self.dir().canonicalize().unwrap().join("nodes").join(instance).join("root")
    }

    /// The node of an instance, once there is one and `is` holds of it.
    pub(crate) async fn node(&self, instance: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = until(Duration::from_secs(30), || {
            let status = self.status();
            let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
            last = nodes.into_iter().find(|n| n["instance"] == instance).unwrap_or(Value::Null);
            is(&last)
        });
        assert!(found.await, "{instance} has not become so: {last:#}");
        last
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let down = self.call("down", &[]);
        if !down.status.success() && !std::thread::panicking() {
            panic!("lab down: {}{}", text(&down.stdout), text(&down.stderr));
        }
    }
}

/// Waits until `is` holds; false when it does not within `limit`.
pub(crate) async fn until(limit: Duration, mut is: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if is() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
