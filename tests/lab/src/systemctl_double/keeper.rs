//! What PID 1 does for a unit that runs: starts its process with the system's environment, waits
//! for its end, records how it ended, and restarts kubelet on failure. A process of its own, so
//! that a job goes on when the `systemctl` that asked for it is killed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use super::cli::Answer;
use super::state::{Active, Exit, Store, UnitState, parse_environment};
use super::units::{self, Kind, Unit};
use crate::directory::write_atomically;
use crate::nodeadm_standin::ENVIRONMENT_OF_ALL;
use crate::processes::{ProcessId, own_program};

/// The double's own verb for it.
pub(super) const VERB: &str = "keep-unit-of-the-double";

/// The agent's script of repairs.
const REPAIRS: &str = "usr/libexec/rollcall/repair";

/// kubelet.service on the AMI has `RestartSec=5`; the lab does not wait as long.
const RESTART: Duration = Duration::from_secs(1);

/// The options with which nodeadm's units run it.
const NODEADM_SOURCES: [&str; 6] = [
    "--config-source",
    "imds://user-data",
    "--config-source",
    "file:///etc/eks/nodeadm.d/",
    "--config-cache",
    "/run/eks/nodeadm/config.json",
];

/// The file that kubelet's unit demands.
pub(super) fn environment_file(store: &Store) -> PathBuf {
    store.root().join("etc/eks/kubelet/environment")
}

/// Starts a keeper for the invocation that begins now.
pub(super) fn spawn(store: &Store, unit: Unit, invocation: &str) -> io::Result<()> {
    let mut child = std::process::Command::new(own_program())
        .arg0(store.root().join("usr/bin/systemctl"))
        .args([VERB, unit.name, invocation])
        .env_clear()
        .envs(store.environment())
        .env("ROLLCALL_NODE_ROOT", store.root())
        .current_dir(store.root())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let pid = child.id().cast_signed();
    let id = ProcessId::of(pid).unwrap_or(ProcessId { pid, started: 0 });
    write_atomically(&store.keeper_file(unit), &serde_json::to_vec(&id)?, 0o644)
        .map_err(io::Error::other)?;
    // The caller ends soon; whoever inherits the keeper reaps it.
    let _ = child.try_wait();
    Ok(())
}

/// Runs the unit until it is done.
pub(super) async fn keep(store: &Store, name: &str, invocation: &str) -> Answer {
    let Some(unit) = units::find(store.root(), name) else {
        return Answer::failed(format!("no unit {name}"), 1);
    };
    loop {
        match run_once(store, unit, invocation).await {
            Ok(Next::Done) => return Answer::default(),
            Ok(Next::Restart) => tokio::time::sleep(RESTART).await,
            Err(error) => {
                let line = format!("{name}: could not run: {error}");
                log_line(store, unit, &line);
                let _ = store.update(unit, |state| {
                    *state = state.ended(Exit::Status(203), false, store.now());
                });
                return Answer::failed(line, 1);
            }
        }
    }
}

enum Next {
    Done,
    Restart,
}

async fn run_once(store: &Store, unit: Unit, invocation: &str) -> io::Result<Next> {
    // While a restart was waited for, the unit may have been stopped, started anew, or have lost
    // what it asserts.
    let wanted = store.update(unit, |state| {
        let ours = state.active == Active::Activating && state.invocation == invocation;
        let holds = unit.assertion_holds(store.root());
        if ours && !holds {
            state.active = Active::Inactive;
            state.sub = "dead".into();
            state.assertion_held = Some(false);
        }
        ours && holds
    })?;
    if !wanted {
        return Ok(Next::Done);
    }
    let mut child = tokio::process::Command::from(command(store, unit)?).spawn()?;
    let main = child.id().and_then(|pid| ProcessId::of(pid.cast_signed()));
    store.update(unit, |state| {
        let running = state.running(main, store.now());
        // A oneshot is activating for as long as it runs.
        *state = match unit.kind {
            Kind::Nodeadm { .. } | Kind::Repair(_) | Kind::Agent(_) => UnitState {
                active: Active::Activating,
                sub: "start".into(),
                active_entered: 0,
                ..running
            },
            _ => running,
        };
    })?;
    let exit = exit_of(child.wait().await?);
    if exit == Exit::Status(0) {
        leave_mark(store, unit)?;
    }
    let after = store.update(unit, |state| {
        *state = state.ended(exit, unit.remains(), store.now());
        if unit.kind == Kind::Kubelet && state.active == Active::Failed {
            state.active = Active::Activating;
            state.sub = "auto-restart".into();
            state.restarts += 1;
        }
        state.clone()
    })?;
    describe_end(store, unit, exit, &after);
    Ok(if after.sub == "auto-restart" { Next::Restart } else { Next::Done })
}

/// `ExecStartPost=` of `rollcall-nodeadm@.service`.
fn leave_mark(store: &Store, unit: Unit) -> io::Result<()> {
    let Kind::Nodeadm { .. } = unit.kind else { return Ok(()) };
    let instance = unit.name.split(['@', '.']).nth(1).unwrap_or(unit.name);
    let mark = store.root().join("run/rollcall-nodeadm").join(instance);
    write_atomically(&mark, b"", 0o644).map_err(io::Error::other)
}

fn describe_end(store: &Store, unit: Unit, exit: Exit, after: &UnitState) {
    let name = unit.name;
    match exit {
        Exit::Status(0) => log_line(store, unit, &format!("{name}: Deactivated successfully.")),
        Exit::Status(status) => log_line(
            store,
            unit,
            &format!("{name}: Main process exited, code=exited, status={status}/FAILURE"),
        ),
        Exit::Signal(signal) => log_line(
            store,
            unit,
            &format!("{name}: Main process exited, code=killed, status={signal}"),
        ),
    }
    if after.result != "success" {
        log_line(store, unit, &format!("{name}: Failed with result '{}'.", after.result));
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Status(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(9)),
    }
}

fn command(store: &Store, unit: Unit) -> io::Result<std::process::Command> {
    let root = store.root();
    let mut environment = store.environment();
    environment.extend(configured_environment(root, unit));
    let mut command = match unit.kind {
        Kind::Nodeadm { skip } => {
            let mut command = std::process::Command::new(root.join("usr/bin/nodeadm"));
            command.args(["init", "--skip", skip]).args(NODEADM_SOURCES);
            command
        }
        Kind::Repair(what) => {
            let found = std::env::var("PATH").unwrap_or_default();
            let root = root.display();
            environment.push(("PATH".into(), format!("{root}/usr/sbin:{root}/usr/bin:{found}")));
            let mut command = std::process::Command::new(store.root().join(REPAIRS));
            command.arg(what);
            command
        }
        Kind::Agent(verb) => {
            let mut command = std::process::Command::new(root.join("usr/bin/rollcall-agent"));
            command.arg(verb).arg("--root").arg(root);
            command
        }
        _ => {
            let text = std::fs::read_to_string(environment_file(store))?;
            environment.extend(parse_environment(&text));
            let arguments = environment.iter().find(|(key, _)| key == "NODEADM_KUBELET_ARGS");
            let arguments = arguments.map(|(_, value)| value.clone()).unwrap_or_default();
            let mut command = std::process::Command::new(root.join("usr/bin/kubelet"));
            command.args(arguments.split_whitespace());
            command
        }
    };
    let log = open_log(store, unit)?;
    command
        .env_clear()
        .envs(environment)
        .env("ROLLCALL_NODE_ROOT", root)
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(command)
}

/// What nodeadm has left for PID 1 to give to every service, and to this one.
fn configured_environment(root: &Path, unit: Unit) -> Vec<(String, String)> {
    let drop_in = format!("etc/systemd/system/{}.d/environment.conf", unit.name);
    let text = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let (all, own) = (text(ENVIRONMENT_OF_ALL), text(&drop_in));
    let lines = all.lines().filter_map(|line| line.strip_prefix("DefaultEnvironment="));
    let lines = lines.chain(own.lines().filter_map(|line| line.strip_prefix("Environment=")));
    let pairs = lines.flat_map(|line| line.split('"').filter_map(|pair| pair.split_once('=')));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn open_log(store: &Store, unit: Unit) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(store.log(unit.name))
}

fn log_line(store: &Store, unit: Unit, line: &str) {
    // The log is for people; the state says the same.
    let _ = open_log(store, unit).and_then(|mut log| writeln!(log, "{line}"));
}
