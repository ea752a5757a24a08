//! Start and stop jobs, blocking or not, with systemd's messages.

use std::io;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::cli::Answer;
use super::keeper;
use super::state::{Active, Store, UnitState};
use super::units::{Kind, Unit};
use crate::processes;

/// How often a blocking job looks whether it is done.
const POLL: Duration = Duration::from_millis(20);
/// systemd's own `DefaultTimeoutStopSec` is 90 s; nothing in the lab needs as long.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// `TimeoutStopSec=` of the agent's own units.
const STOP_TIMEOUT_OF_AGENT: Duration = Duration::from_secs(5);
/// How long the runner may take to start one of them again.
const RESTARTED: Duration = Duration::from_secs(60);

pub(super) async fn start(store: &Store, unit: Unit, no_block: bool) -> Answer {
    if unit.kind == Kind::OfRunner {
        let name = unit.name;
        return Answer::failed(format!("systemctl-double: {name} is run by the lab itself"), 1);
    }
    match begin(store, unit) {
        Ok(Begun::Already) => Answer::default(),
        Ok(Begun::Refused(message)) => Answer::failed(message, 1),
        Ok(Begun::Job | Begun::Never) if no_block => Answer::default(),
        Ok(Begun::Never) => std::future::pending().await,
        Ok(Begun::Job) => finish(store, unit).await,
        Err(error) => io_failed(unit, &error),
    }
}

enum Begun {
    /// Nothing to do, or done already.
    Already,
    /// A keeper is at it.
    Job,
    /// A fault holds the unit: its job does not end.
    Never,
    /// Not possible, and why.
    Refused(String),
}

fn begin(store: &Store, unit: Unit) -> io::Result<Begun> {
    let name = unit.name;
    store.update(unit, |state| match state.active {
        Active::Active if unit.kind != Kind::BootOneshot => Ok(Begun::Already),
        Active::Activating => Ok(Begun::Job),
        Active::Active | Active::Inactive | Active::Failed | Active::Deactivating => {
            if unit.assertion().is_some() {
                let holds = unit.assertion_holds(store.root());
                state.assertion_held = Some(holds);
                if !holds {
                    return Ok(Begun::Refused(format!("Assertion failed on job for {name}.")));
                }
            }
            if unit.kind == Kind::Kubelet && !keeper::environment_file(store).exists() {
                state.active = Active::Failed;
                state.sub = "failed".into();
                state.result = "resources".into();
                return Ok(Begun::Refused(failed_job(unit, "resources").stderr));
            }
            let (now, held) = (store.now(), state.assertion_held);
            *state = state.starting(now);
            state.assertion_held = held;
            match (unit.kind, store.trouble(name).as_deref()) {
                (Kind::StateOnly | Kind::BootOneshot, Some("hangs")) => return Ok(Begun::Never),
                (Kind::StateOnly | Kind::BootOneshot, Some(_)) => {
                    *state = state.ended(super::state::Exit::Status(1), false, now);
                    return Ok(Begun::Refused(failed_job(unit, "exit-code").stderr));
                }
                (Kind::StateOnly, None) => *state = state.running(None, now),
                (Kind::BootOneshot, None) => {
                    *state = state.ended(super::state::Exit::Status(0), true, now);
                }
                (
                    Kind::Nodeadm { .. }
                    | Kind::Repair(_)
                    | Kind::Agent(_)
                    | Kind::Kubelet
                    | Kind::OfRunner,
                    _,
                ) => {
                    keeper::spawn(store, unit, &state.invocation)?;
                    return Ok(Begun::Job);
                }
            }
            Ok(Begun::Already)
        }
    })?
}

/// Waits for a start job to end, as `systemctl start` without `--no-block` does.
async fn finish(store: &Store, unit: Unit) -> Answer {
    loop {
        // In this order: a keeper that was gone before the state was read has written its last.
        let kept = store.keeper_is_alive(unit);
        let state = store.load(unit);
        match outcome(&state, kept) {
            Outcome::Running => tokio::time::sleep(POLL).await,
            Outcome::Done => return Answer::default(),
            Outcome::Failed => return failed_job(unit, &state.result),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Running,
    Done,
    Failed,
}

/// How a start job stands, by the unit's state and whether it was kept before that was read.
fn outcome(state: &UnitState, kept: bool) -> Outcome {
    match state.active {
        Active::Activating if kept => Outcome::Running,
        Active::Active => Outcome::Done,
        Active::Inactive if state.result == "success" => Outcome::Done,
        _ => Outcome::Failed,
    }
}

fn failed_job(unit: Unit, result: &str) -> Answer {
    let name = unit.name;
    let why = match result {
        "signal" => "a fatal signal was delivered to the control process",
        "resources" => "of unavailable resources or another system error",
        _ => "the control process exited with error code",
    };
    Answer::failed(
        format!(
            "Job for {name} failed because {why}.\n\
             See \"systemctl status {name}\" and \"journalctl -xeu {name}\" for details."
        ),
        1,
    )
}

pub(super) async fn stop(store: &Store, unit: Unit, no_block: bool) -> Answer {
    if unit.kind == Kind::OfRunner {
        let name = unit.name;
        return Answer::failed(format!("systemctl-double: {name} is run by the lab itself"), 1);
    }
    let stopping = store.update(unit, |state| match (state.active, state.main) {
        (Active::Active | Active::Activating, Some(main)) => {
            state.active = Active::Deactivating;
            state.sub = "stop-sigterm".into();
            Some(main)
        }
        (Active::Active | Active::Activating, None) => {
            state.active = Active::Inactive;
            state.sub = "dead".into();
            state.ended = store.now();
            None
        }
        _ => None,
    });
    match stopping {
        Err(error) => io_failed(unit, &error),
        Ok(None) => Answer::default(),
        Ok(Some(main)) if no_block => {
            main.signal(Signal::SIGTERM);
            Answer::default()
        }
        Ok(Some(main)) => {
            processes::end(&[main], STOP_TIMEOUT).await;
            // The keeper records the end; without one it is recorded here.
            while store.keeper_is_alive(unit) && store.load(unit).active == Active::Deactivating {
                tokio::time::sleep(POLL).await;
            }
            settle(store, unit)
        }
    }
}

fn settle(store: &Store, unit: Unit) -> Answer {
    let settled = store.update(unit, |state| {
        if state.active == Active::Deactivating {
            *state = state.ended(super::state::Exit::Signal(15), false, store.now());
        }
    });
    settled.map_or_else(|error| io_failed(unit, &error), |()| Answer::default())
}

/// Restarts one of the agent's own services, which the lab's instance runner keeps: told to end, killed
/// when it does not within its unit's `TimeoutStopSec=`, and started by its keeper.
pub(super) async fn restart_kept(store: &Store, unit: Unit) -> Answer {
    let name = unit.name;
    let before = store.load(unit).main.filter(|main| main.is_alive());
    if let Err(error) = store.ask_to_restart(name) {
        return io_failed(unit, &error);
    }
    let Some(before) = before else {
        return Answer::failed(format!("systemctl-double: {name} does not run"), 1);
    };
    processes::end(&[before], STOP_TIMEOUT_OF_AGENT).await;
    let deadline = tokio::time::Instant::now() + RESTARTED;
    while tokio::time::Instant::now() < deadline {
        let now = store.load(unit);
        if now.active == Active::Active && now.main.is_some_and(|main| main != before) {
            return Answer::default();
        }
        tokio::time::sleep(POLL).await;
    }
    failed_job(unit, "timeout")
}

pub(super) fn reset_failed(store: &Store, unit: Unit) -> Answer {
    let reset = store.update(unit, |state| {
        if state.active == Active::Failed {
            state.active = Active::Inactive;
            state.sub = "dead".into();
        }
        state.result = "success".into();
        state.restarts = 0;
    });
    reset.map_or_else(|error| io_failed(unit, &error), |()| Answer::default())
}

fn io_failed(unit: Unit, error: &io::Error) -> Answer {
    Answer::failed(
        format!("systemctl-double: could not keep the state of {}: {error}", unit.name),
        1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_judged_by_state_and_keeper() {
        let cases = [
            (Active::Activating, "success", true, Outcome::Running),
            (Active::Activating, "success", false, Outcome::Failed),
            (Active::Active, "success", true, Outcome::Done),
            (Active::Active, "success", false, Outcome::Done),
            (Active::Inactive, "success", false, Outcome::Done),
            (Active::Inactive, "exit-code", false, Outcome::Failed),
            (Active::Failed, "exit-code", true, Outcome::Failed),
        ];
        for (active, result, kept, expected) in cases {
            let state = UnitState { active, result: result.into(), ..UnitState::default() };
            assert_eq!(outcome(&state, kept), expected, "{active:?} {result} {kept}");
        }
    }
}
