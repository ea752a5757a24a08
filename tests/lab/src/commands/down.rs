//! `lab down`: ends a lab by pid, and proves that nothing of it is left.

use std::net::ToSocketAddrs as _;
use std::path::Path;
use std::time::Duration;

use contract::ExitCode;
use nix::sys::signal::Signal;

use crate::cli::Place;
use crate::directory::{LabDirectory, ignore_missing};
use crate::gear::NodesGear;
use crate::nodes::machine;
use crate::output;
use crate::processes::{self, ProcessId};
use crate::supervisor::Record;

/// How long the supervisor may take to end its nodes.
const DEADLINE: Duration = Duration::from_secs(20);

pub(super) async fn run(place: &Place) -> anyhow::Result<ExitCode> {
    let (code, said) = end(place).await?;
    output::data(&said);
    Ok(code)
}

/// Ends a lab; gives the exit code, and what there is to say.
pub(super) async fn end(place: &Place) -> anyhow::Result<(ExitCode, String)> {
    let shown = place.dir.display();
    let Ok(directory) = LabDirectory::open(&place.dir) else {
        return Ok((ExitCode::Success, format!("no lab is up in {shown}\n")));
    };
    let record = Record::read(&directory);
    let was_up = end_supervisor(&directory).await;
    let swept = sweep(&directory).await;
    let had_machines = record.as_ref().is_some_and(|r| r.options.nodes == NodesGear::Machine);
    if had_machines && let Err(error) = machine::sweep(directory.path()).await {
        output::progress(&format!("left: {error}"));
    }
    let processes = processes::of_lab(directory.path());
    let ports = record.as_ref().map(|r| busy_ports(r, directory.path())).unwrap_or_default();
    for id in &processes {
        output::progress(&format!("left: process {} ({})", id.pid, id.command_line()));
    }
    for port in &ports {
        output::progress(&format!("left: something listens on {port}"));
    }
    if !processes.is_empty() || !ports.is_empty() {
        output::progress(&format!("error: the lab in `{shown}` has not ended completely"));
        return Ok((ExitCode::Error, String::new()));
    }
    for file in [directory.record(), directory.env(), directory.pid_file()] {
        ignore_missing(std::fs::remove_file(&file))?;
    }
    let said = match (was_up, swept) {
        (true, _) => format!("the lab in {shown} has ended: no process and no port is left\n"),
        (false, 0) => format!("no lab is up in {shown}\n"),
        (false, n) => {
            format!("no lab was up in {shown}; {n} processes of a killed one have ended\n")
        }
    };
    Ok((ExitCode::Success, said))
}

/// Ends the supervisor, which ends the rest. Answers whether there was one.
pub(super) async fn end_supervisor(directory: &LabDirectory) -> bool {
    let Some(record) = Record::of_live_lab(directory) else { return false };
    let supervisor = record.supervisor;
    supervisor.signal(Signal::SIGTERM);
    if !processes::all_gone(&[supervisor], DEADLINE).await {
        output::progress("the supervisor does not end: killing it and all of its processes");
        let mut family = processes::descendants(supervisor.pid);
        family.insert(0, supervisor);
        processes::end(&family, Duration::ZERO).await;
    }
    true
}

/// Ends what a lab that was killed has left running. Answers how much there was.
pub(super) async fn sweep(directory: &LabDirectory) -> usize {
    let left: Vec<ProcessId> = processes::of_lab(directory.path());
    processes::end(&left, Duration::from_secs(2)).await;
    left.len()
}

/// The lab's ports that a process of the lab still listens on. A port that is free again may be
/// another lab's by now.
fn busy_ports(record: &Record, directory: &Path) -> Vec<String> {
    let mut ports = record.ports();
    ports.retain(|port| {
        let addresses = port.to_socket_addrs().into_iter().flatten();
        addresses.into_iter().any(|address| {
            processes::listening_on(address.port()).iter().any(|id| id.works_for(directory))
        })
    });
    ports
}
