//! Faults of a node's own files, programs and units, each laid and lifted by itself.
//!
//! What is replaced is kept beside itself under [`KEPT`], so that lifting a fault restores it.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{disk, slow};
use crate::directory::{ignore_missing, write_atomically};
use crate::systemctl_double::state::{Exit, Store};
use crate::systemctl_double::units;

/// What is put after the name of a file that a fault has replaced.
pub(super) const KEPT: &str = ".kept-by-fault";

/// A fault of the node itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// The file is not there.
    Missing(PathBuf),
    /// The program cannot be executed.
    NotExecutable(PathBuf),
    /// The directory is a file system of its own that has no room left. Needs root.
    Full(PathBuf),
    /// The file says something else.
    Write(PathBuf, String),
    /// The directory is a file system of its own that never answers. Needs root.
    Hung(PathBuf),
    /// Every program of the node's starts so many milliseconds later.
    ProgramsSlow(u64),
    /// A program does not do its work.
    Program(Program, Trouble),
    /// A unit does not start.
    Unit(String, Trouble),
    /// A unit has failed once, and starts again when it is told to.
    Died(String),
    /// An AWS service is found at another URL, from the next start of a program on.
    Endpoint(String, String),
}

/// A program of the node that may misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// nodeadm, in its config phase.
    NodeadmConfig,
    /// nodeadm, in its run phase.
    NodeadmRun,
    /// kubelet.
    Kubelet,
}

/// How it misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It ends with an error.
    Fails,
    /// It does not end, or does not come up.
    Hangs,
}

impl Trouble {
    const fn label(self) -> &'static str {
        match self {
            Self::Fails => "fails",
            Self::Hangs => "hangs",
        }
    }
}

impl Local {
    /// The fault of that name, if it is one of these.
    #[must_use]
    pub fn parse(name: &str, value: Option<&str>) -> Option<Self> {
        let path = |text: &str| text.starts_with('/').then(|| PathBuf::from(text));
        let phase = |text: &str| match text {
            "config" => Some(Program::NodeadmConfig),
            "run" => Some(Program::NodeadmRun),
            _ => None,
        };
        Some(match (name, value) {
            ("missing", Some(file)) => Self::Missing(path(file)?),
            ("full", Some(directory)) => Self::Full(path(directory)?),
            ("not-executable", Some(file)) => Self::NotExecutable(path(file)?),
            ("write", Some(value)) => {
                let (file, text) = value.split_once(':')?;
                Self::Write(path(file)?, text.to_owned())
            }
            ("hung", Some(file)) => Self::Hung(path(file)?),
            ("programs-slow", Some(milliseconds)) => Self::ProgramsSlow(milliseconds.parse().ok()?),
            ("nodeadm-fails", Some(value)) => Self::Program(phase(value)?, Trouble::Fails),
            ("nodeadm-hangs", Some(value)) => Self::Program(phase(value)?, Trouble::Hangs),
            ("kubelet-fails", None) => Self::Program(Program::Kubelet, Trouble::Fails),
            ("kubelet-hangs", None) => Self::Program(Program::Kubelet, Trouble::Hangs),
            ("unit-fails", Some(unit)) => Self::Unit(unit.to_owned(), Trouble::Fails),
            ("unit-hangs", Some(unit)) => Self::Unit(unit.to_owned(), Trouble::Hangs),
            ("unit-died", Some(unit)) => Self::Died(unit.to_owned()),
            ("aws-endpoint", Some(value)) => {
                let (service, url) = value.split_once(':')?;
                Self::Endpoint(service.to_owned(), url.to_owned())
            }
            _ => return None,
        })
    }

    /// Lays the fault on the node at `root`.
    ///
    /// # Errors
    /// When a file cannot be changed.
    pub fn lay(&self, root: &Path) -> io::Result<()> {
        match self {
            Self::Missing(path) => fs::rename(at(root, path), kept(&at(root, path))),
            Self::NotExecutable(path) => {
                let path = at(root, path);
                let content = fs::read(&path)?;
                keep(&path)?;
                write(&path, &content, 0o644)
            }
            Self::Full(path) => disk::fill(&at(root, path)),
            Self::Hung(path) => disk::hang(&at(root, path)),
            Self::Write(path, text) => {
                let path = at(root, path);
                keep(&path)?;
                // What begins like a program is one.
                let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
                write(&path, text.as_bytes(), mode)
            }
            Self::ProgramsSlow(milliseconds) => slow::lay(root, *milliseconds),
            Self::Program(program, trouble) => {
                let path = root.join(program.path());
                keep(&path)?;
                let real = fs::read_link(kept(&path))?;
                write(&path, program.script(*trouble, &real).as_bytes(), 0o755)
            }
            Self::Endpoint(service, url) => {
                let (path, text) = environment(root)?;
                let line = format!("{}={url}\n", variable(service));
                write(&path, (text + &line).as_bytes(), 0o644)
            }
            Self::Died(unit) => {
                let store = Store::of(root);
                let Some(unit) = units::find(root, unit) else {
                    return Err(io::Error::other(format!("there is no unit {unit}")));
                };
                store.update(unit, |state| {
                    let now = store.now();
                    *state = state.starting(now).ended(Exit::Status(1), false, now);
                })
            }
            Self::Unit(unit, trouble) => {
                let store = Store::of(root);
                store.set_trouble(&units::full_name(unit), Some(trouble.label()))?;
                let Some(unit) = units::find(root, unit) else {
                    return Err(io::Error::other(format!("there is no unit {unit}")));
                };
                store.update(unit, |state| {
                    let starting = state.starting(store.now());
                    *state = match trouble {
                        Trouble::Hangs => starting,
                        Trouble::Fails => starting.ended(Exit::Status(1), false, store.now()),
                    };
                })
            }
        }
    }

    /// Takes the fault off the node at `root`.
    ///
    /// # Errors
    /// When a file cannot be put back.
    pub fn lift(&self, root: &Path) -> io::Result<()> {
        match self {
            Self::Missing(path) | Self::NotExecutable(path) | Self::Write(path, _) => {
                put_back(&at(root, path))
            }
            Self::Full(path) | Self::Hung(path) => disk::unmount(&at(root, path)),
            Self::ProgramsSlow(_) => slow::lift(root),
            Self::Program(program, _) => put_back(&root.join(program.path())),
            Self::Endpoint(service, _) => {
                let (path, text) = environment(root)?;
                let ours = format!("{}=", variable(service));
                let lines = text.split_inclusive('\n').filter(|line| !line.starts_with(&ours));
                write(&path, lines.collect::<String>().as_bytes(), 0o644)
            }
            Self::Died(unit) => {
                let store = Store::of(root);
                let Some(unit) = units::find(root, unit) else { return Ok(()) };
                store.update(unit, |state| {
                    *state = state.starting(store.now()).running(None, store.now());
                })
            }
            Self::Unit(unit, _) => {
                let store = Store::of(root);
                store.set_trouble(&units::full_name(unit), None)?;
                let Some(unit) = units::find(root, unit) else { return Ok(()) };
                store.update(unit, |state| {
                    let starting = state.starting(store.now());
                    *state = if unit.remains() {
                        starting.ended(Exit::Status(0), true, store.now())
                    } else {
                        starting.running(None, store.now())
                    };
                })
            }
        }
    }

    /// Why it cannot be laid here, if it cannot.
    #[must_use]
    pub fn lacks(&self) -> Option<&'static str> {
        match self {
            Self::Full(_) | Self::Hung(_) if !nix::unistd::geteuid().is_root() => {
                Some("it mounts a file system, which needs root")
            }
            Self::Hung(_) if !Path::new(disk::FUSE).exists() => {
                Some("this machine has no /dev/fuse")
            }
            _ => None,
        }
    }

    /// Whether a boot wipes it away: what lies in `/run`.
    #[must_use]
    pub const fn ends_with_boot(&self) -> bool {
        matches!(self, Self::Unit(..) | Self::Endpoint(..))
    }
}

impl Program {
    const fn path(self) -> &'static str {
        match self {
            Self::NodeadmConfig | Self::NodeadmRun => "usr/bin/nodeadm",
            Self::Kubelet => "usr/bin/kubelet",
        }
    }

    /// The program with its trouble; in its other phase, nodeadm is what it was.
    fn script(self, trouble: Trouble, real: &Path) -> String {
        let (matches, error) = match self {
            Self::NodeadmConfig => ("*\"--skip run\"*", NODEADM_ERROR),
            Self::NodeadmRun => ("*\"--skip config\"*", NODEADM_ERROR),
            Self::Kubelet => ("*", KUBELET_ERROR),
        };
        let act = match trouble {
            Trouble::Fails => format!("echo '{error}' >&2; exit 1"),
            Trouble::Hangs => "exec sleep 86400".to_owned(),
        };
        format!(
            "#!/bin/sh\n# A fault of the lab.\ncase \"$*\" in\n{matches}) {act} ;;\nesac\nexec {} nodeadm \"$@\"\n",
            real.display()
        )
    }
}

const NODEADM_ERROR: &str = r#"{"level":"fatal","ts":1.0,"caller":"cmd/main.go:36","msg":"Command failed","error":"write /etc/kubernetes/kubelet/config.json: input/output error"}"#;
const KUBELET_ERROR: &str = r#"E1120 20:00:00.000000    1 run.go:72] "command failed" err="failed to run Kubelet: could not detect clock speed from output: \"\"""#;

/// The file of the variables that every unit gets, and what is in it.
fn environment(root: &Path) -> io::Result<(PathBuf, String)> {
    let path = Store::of(root).environment_file();
    let text = fs::read_to_string(&path)?;
    Ok((path, text))
}

/// The SDK's standard variable of a service.
fn variable(service: &str) -> String {
    format!("AWS_ENDPOINT_URL_{}", service.to_ascii_uppercase())
}

fn at(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

pub(super) fn kept(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(KEPT);
    name.into()
}

/// Keeps what is there, once, and leaves nothing in its place.
pub(super) fn keep(path: &Path) -> io::Result<()> {
    if path.symlink_metadata().is_ok() && kept(path).symlink_metadata().is_err() {
        return fs::rename(path, kept(path));
    }
    Ok(())
}

pub(super) fn put_back(path: &Path) -> io::Result<()> {
    if kept(path).symlink_metadata().is_ok() {
        ignore_missing(fs::remove_file(path))?;
        fs::rename(kept(path), path)
    } else {
        ignore_missing(fs::remove_file(path))
    }
}

pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    write_atomically(path, content, mode).map_err(io::Error::other)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "missing={}", path.display()),
            Self::Full(path) => write!(f, "full={}", path.display()),
            Self::NotExecutable(path) => write!(f, "not-executable={}", path.display()),
            Self::Write(path, text) => write!(f, "write={}:{text}", path.display()),
            Self::Hung(path) => write!(f, "hung={}", path.display()),
            Self::ProgramsSlow(milliseconds) => write!(f, "programs-slow={milliseconds}"),
            Self::Program(Program::NodeadmConfig, trouble) => {
                write!(f, "nodeadm-{}=config", trouble.label())
            }
            Self::Program(Program::NodeadmRun, trouble) => {
                write!(f, "nodeadm-{}=run", trouble.label())
            }
            Self::Program(Program::Kubelet, trouble) => write!(f, "kubelet-{}", trouble.label()),
            Self::Died(unit) => write!(f, "unit-died={unit}"),
            Self::Unit(unit, trouble) => write!(f, "unit-{}={unit}", trouble.label()),
            Self::Endpoint(service, url) => write!(f, "aws-endpoint={service}:{url}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn node() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        for name in ["nodeadm", "kubelet"] {
            symlink("/nowhere/lab", root.path().join("usr/bin").join(name)).unwrap();
        }
        write(&root.path().join("etc/plain"), b"as it was", 0o755).unwrap();
        root
    }

    fn fault(text: &str) -> Local {
        let (name, value) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v)));
        Local::parse(name, value).unwrap()
    }

    #[test]
    fn what_is_laid_can_be_lifted() {
        let root = node();
        let plain = root.path().join("etc/plain");
        let nodeadm = root.path().join("usr/bin/nodeadm");
        if nix::unistd::geteuid().is_root() {
            let full = fault("full=/var/lib/kubelet");
            let file = root.path().join("var/lib/kubelet/file");
            full.lay(root.path()).unwrap();
            assert!(fs::write(&file, vec![0; 100_000]).is_err(), "there was room");
            full.lift(root.path()).unwrap();
            fs::write(&file, vec![0; 100_000]).unwrap();
        }
        if nix::unistd::geteuid().is_root() && Path::new(disk::FUSE).exists() {
            let hung = fault("hung=/var/lib/containerd");
            let path = root.path().join("var/lib/containerd");
            hung.lay(root.path()).unwrap();
            let waits = std::thread::spawn({
                let path = path.clone();
                move || fs::read_dir(path).map(drop)
            });
            // Whoever came before it was lifted gets an error, or has come after it.
            hung.lift(root.path()).unwrap();
            let _ = waits.join().unwrap();
            fs::read_dir(path).unwrap();
        }
        for text in ["missing=/etc/plain", "not-executable=/etc/plain", "write=/etc/plain:b"] {
            fault(text).lay(root.path()).unwrap();
            let mode = fs::metadata(&plain).map(|meta| meta.permissions().mode() & 0o777);
            let same = fs::read(&plain).ok().as_deref() == Some(b"as it was");
            assert!(!same || mode.unwrap() == 0o644, "{text} changes nothing");
            fault(text).lift(root.path()).unwrap();
            assert_eq!(fs::read(&plain).unwrap(), b"as it was", "{text}");
            assert_eq!(fs::metadata(&plain).unwrap().permissions().mode() & 0o777, 0o755);
        }
        fault("nodeadm-fails=config").lay(root.path()).unwrap();
        assert!(nodeadm.symlink_metadata().unwrap().is_file());
        fault("nodeadm-fails=config").lift(root.path()).unwrap();
        assert_eq!(fs::read_link(nodeadm).unwrap(), Path::new("/nowhere/lab"));
        let new = fault("write=/etc/new:x");
        new.lay(root.path()).unwrap();
        new.lift(root.path()).unwrap();
        assert!(!root.path().join("etc/new").exists());
    }

    #[test]
    fn a_unit_is_held_and_let_go() {
        use crate::systemctl_double::state::Active;
        let root = node();
        let state = || {
            let unit = units::find(root.path(), "cloud-final").unwrap();
            Store::of(root.path()).load(unit).active
        };
        let held = fault("unit-hangs=cloud-final");
        held.lay(root.path()).unwrap();
        assert_eq!(state(), Active::Activating);
        held.lift(root.path()).unwrap();
        assert_eq!(state(), Active::Active);
    }

    #[test]
    fn a_program_fails_in_one_phase_alone() {
        let script = Program::NodeadmRun.script(Trouble::Fails, Path::new("/lab"));
        let run = |arguments: &[&str]| {
            let shell = std::process::Command::new("sh")
                .args(["-c", &script.replace("exec /lab", "echo"), "nodeadm"])
                .args(arguments)
                .output()
                .unwrap();
            (shell.status.code(), String::from_utf8(shell.stdout).unwrap())
        };
        assert_eq!(run(&["init", "--skip", "config"]).0, Some(1));
        let (code, said) = run(&["init", "--skip", "run"]);
        assert_eq!((code, said.trim()), (Some(0), "nodeadm init --skip run"));
    }
}
