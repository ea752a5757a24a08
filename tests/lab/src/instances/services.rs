//! Keeps the agent's two services running, as PID 1 does from their units: environment, log,
//! restart on failure, and the start limit that ends a crash loop.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use contract::names::{UNIT_JOIN, UNIT_WATCH};
use tokio::process::{Child, Command};

use super::console::Console;
use crate::faults::Fault;
use crate::systemctl_double::state::{Active, Exit, Store};
use crate::systemctl_double::units;

/// `RestartSec=` of both units.
const RESTART: Duration = Duration::from_secs(1);
/// `StartLimitBurst=` of the join's unit.
const BURST: usize = 5;
/// `StartLimitIntervalSec=` of the join's unit.
const INTERVAL: Duration = Duration::from_secs(120);

/// One service of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its unit.
    pub unit: &'static str,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// `Restart=always` and no start limit; else `Restart=on-failure` and the join's limit.
    pub always: bool,
}

/// The services of an agent on the node at `root` with the loopback address `address`; its join is
/// made to die where `faults` say so.
#[must_use]
pub fn of_agent(root: &Path, address: std::net::Ipv4Addr, faults: &[Fault]) -> [Service; 2] {
    let root = root.to_string_lossy();
    let listen = format!("{address}:{}", contract::names::METRICS_PORT);
    let words = |words: &[&str]| -> Vec<String> { words.iter().map(|w| (*w).to_owned()).collect() };
    let mut join = words(&["join", "--root", &root]);
    for fault in faults {
        if let Fault::JoinDies(point) = fault {
            join.extend(["--die-at".to_owned(), point.to_string()]);
        }
    }
    [
        Service { unit: UNIT_JOIN, arguments: join, always: false },
        Service {
            unit: UNIT_WATCH,
            arguments: words(&["watch", "--root", &root, "--listen", &listen]),
            always: true,
        },
    ]
}

/// Recent starts of one service.
#[derive(Debug, Default)]
struct Starts(Vec<Instant>);

impl Starts {
    /// Whether one more start is within the limit; counts it if so.
    fn allow(&mut self, now: Instant) -> bool {
        self.0.retain(|start| now.duration_since(*start) < INTERVAL);
        if self.0.len() >= BURST {
            return false;
        }
        self.0.push(now);
        true
    }
}

/// Runs a service until it ends for good; aborting the task ends its process.
pub async fn keep(root: PathBuf, service: Service, console: Console) {
    let store = Store::of(&root);
    let mut starts = Starts::default();
    loop {
        if !service.always && !starts.allow(Instant::now()) {
            console.print(&format!(
                "[FAILED] Failed to start {}: start request repeated too quickly.",
                service.unit
            ));
            set_failed(&store, service.unit);
            return;
        }
        let exit = match start(&store, &service) {
            Ok(mut child) => match child.wait().await {
                Ok(status) => exit_of(status),
                Err(error) => {
                    tracing::error!(unit = service.unit, %error, "lost a service");
                    return;
                }
            },
            Err(error) => {
                log(&store, service.unit, &format!("could not execute: {error}"));
                Exit::Status(203)
            }
        };
        set_ended(&store, service.unit, exit);
        if store.take_restart(service.unit) {
            continue;
        }
        if exit == Exit::Status(0) && !service.always {
            return;
        }
        tokio::time::sleep(RESTART).await;
    }
}

fn start(store: &Store, service: &Service) -> io::Result<Child> {
    let root = store.root();
    let log = OpenOptions::new().create(true).append(true).open(store.log(service.unit))?;
    let child = Command::new(root.join(super::install::AGENT))
        .args(&service.arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(agent_environment(store))
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let main = child.id().and_then(|pid| crate::processes::ProcessId::of(pid.cast_signed()));
    if let Some(unit) = units::find(root, service.unit) {
        store.update(unit, |state| {
            let now = store.now();
            *state = state.starting(now).running(main, now);
        })?;
    }
    Ok(child)
}

/// The agent gets the AWS SDK's standard variables and nothing else of the lab's.
fn agent_environment(store: &Store) -> impl Iterator<Item = (String, String)> {
    store.environment().into_iter().filter(|(key, _)| key.starts_with("AWS_"))
}

fn set_ended(store: &Store, unit: &str, exit: Exit) {
    let Some(unit) = units::find(store.root(), unit) else { return };
    let ended = store.update(unit, |state| {
        *state = state.ended(exit, false, store.now());
        if state.active == Active::Failed {
            state.restarts += 1;
        }
    });
    if let Err(error) = ended {
        tracing::warn!(unit = unit.name, %error, "unit state lost");
    }
    if exit != Exit::Status(0) {
        let how = match exit {
            Exit::Status(status) => format!("code=exited, status={status}"),
            Exit::Signal(signal) => format!("code=killed, status={signal}"),
        };
        log(store, unit.name, &format!("{}: Main process exited, {how}", unit.name));
    }
}

fn set_failed(store: &Store, unit: &str) {
    if let Some(unit) = units::find(store.root(), unit) {
        let _ = store.update(unit, |state| {
            state.active = Active::Failed;
            state.sub = "failed".into();
            state.result = "start-limit-hit".into();
        });
    }
}

fn log(store: &Store, unit: &str, line: &str) {
    let file = OpenOptions::new().create(true).append(true).open(store.log(unit));
    let _ = file.and_then(|mut file| writeln!(file, "{line}"));
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Status(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(9)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::write_atomically;

    #[test]
    fn five_starts_in_two_minutes_and_no_more() {
        let mut starts = Starts::default();
        let begin = Instant::now();
        for n in 0..5 {
            assert!(starts.allow(begin + Duration::from_secs(n)));
        }
        assert!(!starts.allow(begin + Duration::from_secs(119)));
        assert!(starts.allow(begin + Duration::from_secs(121)));
    }

    #[test]
    fn the_agent_is_told_its_root_and_where_to_listen() {
        let [join, _] = of_agent(Path::new("/r"), std::net::Ipv4Addr::new(127, 64, 0, 2), &[]);
        assert_eq!(join.arguments, ["join", "--root", "/r"]);
        let [join, _] =
            of_agent(Path::new("/r"), std::net::Ipv4Addr::LOCALHOST, &[Fault::JoinDies(7)]);
        assert_eq!(join.arguments[3..], ["--die-at", "7"]);
        let [_, watch] = of_agent(Path::new("/r"), std::net::Ipv4Addr::new(127, 64, 0, 2), &[]);
        assert_eq!(watch.arguments, ["watch", "--root", "/r", "--listen", "127.64.0.2:9400"]);
    }

    /// A "service" that leaves a line per start and ends with the given code.
    fn node(script: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let agent = root.path().join(super::super::install::AGENT);
        write_atomically(&agent, format!("#!/bin/sh\n{script}\n").as_bytes(), 0o755).unwrap();
        std::fs::create_dir_all(root.path().join("dev")).unwrap();
        let store = Store::of(root.path());
        let environment = b"AWS_REGION=eu-west-1\nROLLCALL_NODE_ADDRESS=127.64.0.9\n";
        write_atomically(&store.environment_file(), environment, 0o644).unwrap();
        root
    }

    #[tokio::test]
    async fn a_crash_is_followed_by_a_start_and_a_clean_end_is_not() {
        let root = node("env >> starts; [ -e second ] && exit 0; touch second; exit 3");
        let console = Console::of(root.path(), "i-1");
        let [join, _] = of_agent(root.path(), std::net::Ipv4Addr::LOCALHOST, &[]);
        let kept = keep(root.path().to_owned(), join, console);
        tokio::time::timeout(Duration::from_secs(20), kept).await.unwrap();

        let starts = std::fs::read_to_string(root.path().join("starts")).unwrap();
        assert_eq!(starts.matches("AWS_REGION=eu-west-1").count(), 2);
        assert!(!starts.contains("ROLLCALL_NODE"), "{starts}");
        let store = Store::of(root.path());
        let log = std::fs::read_to_string(store.log(UNIT_JOIN)).unwrap();
        assert!(log.contains("status=3"), "{log}");
        let state = store.load(units::find(root.path(), UNIT_JOIN).unwrap());
        assert_eq!((state.active, state.exit), (Active::Inactive, Some(Exit::Status(0))));
    }
}
