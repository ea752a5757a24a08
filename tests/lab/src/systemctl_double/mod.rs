//! `systemctl` of a process node: a double, because such a node has no PID 1.
//!
//! It knows the units that the agent, nodeadm and the stand-ins speak of, keeps their state in
//! files below `ROOT/run/systemd-double/` and answers as systemctl 252 does. What runs for longer
//! than a call is kept by a [`keeper`], which is this double's share of PID 1. It refuses kubelet
//! while `ROOT/run/rollcall-gate/admitted` is missing, as kubelet's drop-in makes systemd do.

mod cli;
mod jobs;
pub mod keeper;
mod show;
pub mod state;
pub mod units;

use std::path::Path;
use std::process::ExitCode;

/// Answers one call of `ROOT/usr/bin/systemctl`.
#[must_use]
pub fn main(root: &Path, arguments: &[String]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    let answer = runtime.block_on(cli::answer(root, arguments));
    crate::output::data(&answer.stdout);
    crate::output::progress(&answer.stderr);
    ExitCode::from(answer.code)
}

#[cfg(test)]
mod tests;
