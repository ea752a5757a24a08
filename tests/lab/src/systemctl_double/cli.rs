//! The command line of the double: verbs, options and exit codes of systemctl 252.

use std::path::Path;

use super::state::{Active, Store};
use super::units::Kind;
use super::{jobs, keeper, show, units};

/// What a call prints and ends with.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) code: u8,
}

impl Answer {
    pub(super) fn failed(stderr: impl Into<String>, code: u8) -> Self {
        Self { stderr: stderr.into(), code, ..Self::default() }
    }

    /// Several units in one call: everything is printed, the worst code wins.
    fn and(mut self, other: Self) -> Self {
        self.stdout.push_str(&other.stdout);
        if !self.stderr.is_empty() && !other.stderr.is_empty() {
            self.stderr.push('\n');
        }
        self.stderr.push_str(&other.stderr);
        self.code = self.code.max(other.code);
        self
    }
}

#[derive(Debug, Default)]
struct Call {
    verb: String,
    units: Vec<String>,
    properties: Vec<String>,
    values_only: bool,
    no_block: bool,
    quiet: bool,
}

fn parse(arguments: &[String]) -> Result<Call, String> {
    let mut call = Call::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--no-block" => call.no_block = true,
            "--value" => call.values_only = true,
            "-q" | "--quiet" => call.quiet = true,
            "--no-pager" | "--now" | "--system" | "--no-ask-password" => {}
            "-p" | "--property" => {
                let list = rest.next().ok_or("option requires an argument -- 'p'")?;
                call.properties.extend(list.split(',').map(str::to_owned));
            }
            option if option.starts_with("--property=") || option.starts_with("-p") => {
                let list = option.trim_start_matches("--property=").trim_start_matches("-p");
                call.properties.extend(list.split(',').map(str::to_owned));
            }
            option if option.starts_with('-') => {
                return Err(format!("systemctl-double: option `{option}` is not known here"));
            }
            _ if call.verb.is_empty() => call.verb.clone_from(argument),
            unit => call.units.push(units::full_name(unit)),
        }
    }
    Ok(call)
}

pub(super) async fn answer(root: &Path, arguments: &[String]) -> Answer {
    let call = match parse(arguments) {
        Ok(call) => call,
        Err(message) => return Answer::failed(message, 1),
    };
    let store = Store::of(root);
    if call.verb == keeper::VERB {
        let word = |n: usize| arguments.get(n).map_or("", String::as_str);
        return keeper::keep(&store, word(1), word(2)).await;
    }
    if matches!(call.verb.as_str(), "daemon-reload" | "enable" | "disable" | "unmask") {
        return Answer::default();
    }
    if call.verb == "reboot" {
        let asked = store.ask_to_reboot();
        return asked
            .map_or_else(|error| Answer::failed(error.to_string(), 1), |()| Answer::default());
    }
    if call.units.is_empty() {
        return Answer::failed("Too few arguments.", 1);
    }
    let mut whole = Answer::default();
    for unit in &call.units {
        if call.verb == "show" && !whole.stdout.is_empty() {
            whole.stdout.push('\n');
        }
        whole = whole.and(one(&store, &call, unit).await);
    }
    whole
}

async fn one(store: &Store, call: &Call, name: &str) -> Answer {
    let unit = units::find(store.root(), name);
    match (call.verb.as_str(), unit) {
        ("show", unit) => {
            let state = unit.map(|unit| (unit, store.load(unit)));
            let loaded = state.as_ref().map(|(unit, state)| (*unit, state));
            let stdout = show::show(name, loaded, &call.properties, call.values_only);
            Answer { stdout, ..Answer::default() }
        }
        ("is-active", unit) => {
            let state = unit.map(|unit| store.load(unit).active).unwrap_or_default();
            let code = match (unit, state) {
                (_, Active::Active) => 0,
                (None, _) => 4,
                _ => 3,
            };
            let stdout = if call.quiet { String::new() } else { format!("{}\n", state.label()) };
            Answer { stdout, code, ..Answer::default() }
        }
        ("start" | "stop" | "restart" | "try-restart" | "reset-failed", None) => {
            let verb =
                if call.verb == "reset-failed" { "reset failed state of" } else { &call.verb };
            let code = if call.verb == "reset-failed" { 1 } else { 5 };
            Answer::failed(format!("Failed to {verb} {name}: Unit {name} not found."), code)
        }
        ("start", Some(unit)) => jobs::start(store, unit, call.no_block).await,
        ("stop", Some(unit)) => jobs::stop(store, unit, call.no_block).await,
        ("restart", Some(unit)) if unit.kind == Kind::OfRunner => {
            jobs::restart_kept(store, unit).await
        }
        ("restart", Some(unit)) => {
            let stopped = jobs::stop(store, unit, false).await;
            stopped.and(jobs::start(store, unit, call.no_block).await)
        }
        ("try-restart", Some(unit)) if store.load(unit).active == Active::Active => {
            let stopped = jobs::stop(store, unit, false).await;
            stopped.and(jobs::start(store, unit, call.no_block).await)
        }
        ("try-restart", Some(_)) => Answer::default(),
        ("reset-failed", Some(unit)) => jobs::reset_failed(store, unit),
        (verb, _) => Answer::failed(format!("Unknown command verb {verb}."), 1),
    }
}
