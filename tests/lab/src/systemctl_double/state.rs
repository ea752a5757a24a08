//! The state of each unit, in one JSON file per unit, changed under one lock per node.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::units::Unit;
use crate::directory::write_atomically;
use crate::processes::ProcessId;

/// Where the double keeps everything, below the node's root.
pub const DIRECTORY: &str = "run/systemd-double";

/// `ActiveState` of a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Active {
    /// Not running.
    #[default]
    Inactive,
    /// Starting.
    Activating,
    /// Running, or done and remaining.
    Active,
    /// Stopping.
    Deactivating,
    /// Ended badly.
    Failed,
}

impl Active {
    /// The word that systemctl prints.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Activating => "activating",
            Self::Active => "active",
            Self::Deactivating => "deactivating",
            Self::Failed => "failed",
        }
    }
}

/// How the main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

/// State of a unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitState {
    /// `ActiveState`.
    pub active: Active,
    /// `SubState`.
    pub sub: String,
    /// `Result`.
    pub result: String,
    /// The main process, while it runs.
    pub main: Option<ProcessId>,
    /// Its pid, kept after its end.
    pub exec_main_pid: i32,
    /// How it ended.
    pub exit: Option<Exit>,
    /// `StatusText`.
    pub status_text: String,
    /// `InvocationID`.
    pub invocation: String,
    /// Microseconds since boot when the main process started.
    pub started: u64,
    /// Microseconds since boot when it ended.
    pub ended: u64,
    /// Microseconds since boot when the unit became active.
    pub active_entered: u64,
    /// Whether the last start's assertion held; none: nothing to assert yet.
    pub assertion_held: Option<bool>,
    /// Automatic restarts.
    pub restarts: u32,
}

impl UnitState {
    /// A fresh start: a new invocation, of which nothing is known yet.
    #[must_use]
    pub fn starting(&self, now: u64) -> Self {
        Self {
            active: Active::Activating,
            sub: "start".into(),
            result: "success".into(),
            invocation: invocation(),
            started: now,
            restarts: self.restarts,
            ..Self::default()
        }
    }

    /// Running with this main process.
    #[must_use]
    pub fn running(&self, main: Option<ProcessId>, now: u64) -> Self {
        Self {
            active: Active::Active,
            sub: "running".into(),
            main,
            exec_main_pid: main.map_or(0, |id| id.pid),
            active_entered: now,
            ..self.clone()
        }
    }

    /// Ended: as failed unless the end was asked for or good.
    #[must_use]
    pub fn ended(&self, exit: Exit, remains: bool, now: u64) -> Self {
        let asked = self.active == Active::Deactivating;
        let result = match exit {
            _ if asked => "success",
            Exit::Status(0) => "success",
            Exit::Status(_) => "exit-code",
            Exit::Signal(_) => "signal",
        };
        let (active, sub) = match result {
            "success" if remains => (Active::Active, "exited"),
            "success" => (Active::Inactive, "dead"),
            _ => (Active::Failed, "failed"),
        };
        Self {
            active,
            sub: sub.into(),
            result: result.into(),
            main: None,
            exit: Some(exit),
            ended: now,
            active_entered: if active == Active::Active { now } else { self.active_entered },
            ..self.clone()
        }
    }
}

fn invocation() -> String {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    uuid.trim().replace('-', "")
}

/// The states of one node's units.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store of the node at `root`.
    #[must_use]
    pub fn of(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The node's root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn directory(&self) -> PathBuf {
        self.root.join(DIRECTORY)
    }

    /// Where a unit's output goes.
    #[must_use]
    pub fn log(&self, unit: &str) -> PathBuf {
        self.directory().join(format!("{unit}.log"))
    }

    /// The environment that PID 1 gives to every unit: `KEY=value` lines.
    #[must_use]
    pub fn environment_file(&self) -> PathBuf {
        self.directory().join("environment")
    }

    /// Who keeps a unit.
    #[must_use]
    pub fn keeper_file(&self, unit: Unit) -> PathBuf {
        self.directory().join(format!("{}.keeper", unit.name))
    }

    /// What a fault makes of every start of a unit: `fails` or `hangs`.
    #[must_use]
    pub fn trouble(&self, unit: &str) -> Option<String> {
        fs::read_to_string(self.trouble_file(unit)).ok()
    }

    /// Lays a fault on a unit, or takes it off.
    ///
    /// # Errors
    /// When the file that says so cannot be written or removed.
    pub fn set_trouble(&self, unit: &str, trouble: Option<&str>) -> io::Result<()> {
        let path = self.trouble_file(unit);
        match trouble {
            Some(trouble) => {
                write_atomically(&path, trouble.as_bytes(), 0o644).map_err(io::Error::other)
            }
            None => crate::directory::ignore_missing(fs::remove_file(path)),
        }
    }

    fn trouble_file(&self, unit: &str) -> PathBuf {
        self.directory().join(format!("{unit}.trouble"))
    }

    /// Asks whoever keeps one of the agent's own services to start it again when it ends.
    ///
    /// # Errors
    /// When the file that says so cannot be written.
    pub fn ask_to_restart(&self, unit: &str) -> io::Result<()> {
        write_atomically(&self.restart_file(unit), b"", 0o644).map_err(io::Error::other)
    }

    /// Takes what [`Self::ask_to_restart`] has left: whether it has left anything.
    #[must_use]
    pub fn take_restart(&self, unit: &str) -> bool {
        fs::remove_file(self.restart_file(unit)).is_ok()
    }

    fn restart_file(&self, unit: &str) -> PathBuf {
        self.directory().join(format!("{unit}.restart"))
    }

    /// The node asks whoever gives it power to reboot it.
    ///
    /// # Errors
    /// When the file that says so cannot be written.
    pub fn ask_to_reboot(&self) -> io::Result<()> {
        write_atomically(&self.directory().join("reboot"), b"", 0o644).map_err(io::Error::other)
    }

    /// Takes what [`Self::ask_to_reboot`] has left: whether it has left anything.
    #[must_use]
    pub fn take_reboot(&self) -> bool {
        fs::remove_file(self.directory().join("reboot")).is_ok()
    }

    /// Whether somebody keeps the unit, and so records its end.
    #[must_use]
    pub fn keeper_is_alive(&self, unit: Unit) -> bool {
        let raw = fs::read(self.keeper_file(unit)).unwrap_or_default();
        serde_json::from_slice::<ProcessId>(&raw).is_ok_and(ProcessId::is_alive)
    }

    /// Reads [`Self::environment_file`].
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        parse_environment(&fs::read_to_string(self.environment_file()).unwrap_or_default())
    }

    /// Marks now as the moment when the machine started.
    ///
    /// # Errors
    /// When the mark cannot be written.
    pub fn mark_boot(&self) -> Result<(), crate::directory::DirectoryError> {
        let mark = host_microseconds().to_string();
        write_atomically(&self.directory().join("booted"), mark.as_bytes(), 0o644)
    }

    /// Microseconds since the node started.
    #[must_use]
    pub fn now(&self) -> u64 {
        let mark = fs::read_to_string(self.directory().join("booted")).unwrap_or_default();
        host_microseconds().saturating_sub(mark.trim().parse().unwrap_or(0))
    }

    /// A unit's state; a service whose main process and keeper are gone has failed.
    #[must_use]
    pub fn load(&self, unit: Unit) -> UnitState {
        // Before the state is read: a keeper that is gone by then has written its last.
        let kept = self.keeper_is_alive(unit);
        let path = self.directory().join(format!("{}.json", unit.name));
        let state: UnitState = fs::read(path)
            .ok()
            .and_then(|raw| serde_json::from_slice(&raw).ok())
            .unwrap_or_else(|| UnitState {
                sub: "dead".into(),
                result: "success".into(),
                ..UnitState::default()
            });
        match state.main {
            Some(main) if state.active == Active::Active && !main.is_alive() && !kept => {
                state.ended(Exit::Signal(9), unit.remains(), state.started)
            }
            _ => state,
        }
    }

    /// Changes a unit's state under the node's lock; what `change` answers is answered.
    ///
    /// # Errors
    /// When the lock or the state cannot be written.
    pub fn update<T>(&self, unit: Unit, change: impl FnOnce(&mut UnitState) -> T) -> io::Result<T> {
        let _lock = self.lock()?;
        let mut state = self.load(unit);
        let answer = change(&mut state);
        let path = self.directory().join(format!("{}.json", unit.name));
        let json = serde_json::to_vec(&state)?;
        write_atomically(&path, &json, 0o644).map_err(io::Error::other)?;
        Ok(answer)
    }

    fn lock(&self) -> io::Result<Flock<File>> {
        fs::create_dir_all(self.directory())?;
        let path = self.directory().join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }
}

/// `KEY=value` lines as systemd's EnvironmentFile= takes them: comments, quotes.
#[must_use]
pub fn parse_environment(text: &str) -> Vec<(String, String)> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with(['#', ';']))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| {
            let value = value.trim();
            let bare = ['"', '\'']
                .iter()
                .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote))
                .unwrap_or(value);
            (key.trim().to_owned(), bare.to_owned())
        })
        .collect()
}

fn host_microseconds() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        seconds * 1_000_000 + u64::try_from(time.tv_nsec() / 1_000).unwrap_or(0)
    })
}
