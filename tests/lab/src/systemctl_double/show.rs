//! `systemctl show`: one property after the other, as systemd names and prints them.

use super::state::{Exit, UnitState};
use super::units::Unit;

const PROPERTIES: [&str; 20] = [
    "Id",
    "Names",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "Result",
    "MainPID",
    "ExecMainPID",
    "ExecMainCode",
    "ExecMainStatus",
    "ExecMainStartTimestampMonotonic",
    "ExecMainExitTimestampMonotonic",
    "ActiveEnterTimestampMonotonic",
    "InactiveEnterTimestampMonotonic",
    "StatusText",
    "InvocationID",
    "AssertResult",
    "NRestarts",
    "NeedDaemonReload",
];

/// The text of `show` for a unit that is loaded (`Some`) or not found. Properties that systemd
/// does not have are left out, as systemctl does.
pub(super) fn show(
    name: &str,
    unit: Option<(Unit, &UnitState)>,
    wanted: &[String],
    values_only: bool,
) -> String {
    let names: Vec<&str> = if wanted.is_empty() {
        PROPERTIES.to_vec()
    } else {
        wanted.iter().map(String::as_str).collect()
    };
    let mut text = String::new();
    for property in names {
        let Some(value) = property_of(name, unit, property) else { continue };
        if values_only {
            text.push_str(&format!("{value}\n"));
        } else {
            text.push_str(&format!("{property}={value}\n"));
        }
    }
    text
}

fn property_of(name: &str, unit: Option<(Unit, &UnitState)>, property: &str) -> Option<String> {
    let default =
        UnitState { sub: "dead".into(), result: "success".into(), ..UnitState::default() };
    let state = unit.map_or(&default, |(_, state)| state);
    let (code, status) = match state.exit {
        None => (0, 0),
        Some(Exit::Status(status)) => (1, status),
        Some(Exit::Signal(signal)) => (2, signal),
    };
    Some(match property {
        "Id" | "Names" => name.to_owned(),
        "LoadState" => if unit.is_some() { "loaded" } else { "not-found" }.to_owned(),
        "ActiveState" => state.active.label().to_owned(),
        "SubState" => state.sub.clone(),
        "UnitFileState" => if unit.is_some() { "enabled" } else { "" }.to_owned(),
        "Result" => state.result.clone(),
        "MainPID" => state.main.map_or(0, |id| id.pid).to_string(),
        "ExecMainPID" => state.exec_main_pid.to_string(),
        "ExecMainCode" => code.to_string(),
        "ExecMainStatus" => status.to_string(),
        "ExecMainStartTimestampMonotonic" => state.started.to_string(),
        "ExecMainExitTimestampMonotonic" | "InactiveEnterTimestampMonotonic" => {
            state.ended.to_string()
        }
        "ActiveEnterTimestampMonotonic" => state.active_entered.to_string(),
        "StatusText" => state.status_text.clone(),
        "InvocationID" => state.invocation.clone(),
        "AssertResult" => match state.assertion_held {
            Some(true) => "yes",
            Some(false) | None => "no",
        }
        .to_owned(),
        "NRestarts" => state.restarts.to_string(),
        "NeedDaemonReload" => "no".to_owned(),
        _ => return None,
    })
}
