//! One verb a file. Each answers with its exit code; what went wrong is one sentence on stderr.

mod bench;
mod corpus;
mod down;
mod exec;
mod fault;
mod status;
mod supervisor;
mod up;

use std::path::Path;

use contract::ExitCode;

use crate::cli::{Cli, Command};
use crate::directory::LabDirectory;
use crate::supervisor::Record;

/// Runs a command.
pub async fn run(cli: Cli) -> ExitCode {
    let ended = match cli.command {
        Command::Up(up) => up::run(up).await,
        Command::Down(place) => down::run(&place).await,
        Command::Status(status) => status::run(&status).await,
        Command::Fault(fault) => fault::run(&fault).await,
        Command::Exec(exec) => exec::run(&exec).await,
        Command::Bench(bench) => bench::run(bench).await,
        Command::Corpus(corpus) => corpus::run(corpus).await,
        Command::Supervisor(supervisor) => supervisor::run(supervisor).await,
    };
    ended.unwrap_or_else(|error| {
        crate::output::progress(&format!("error: {error:#}"));
        ExitCode::Error
    })
}

/// The live lab in `dir`, or what to do about there being none.
fn live(dir: &Path) -> anyhow::Result<(LabDirectory, Record)> {
    let none = || anyhow::anyhow!("no lab is up in `{}`: start one with lab up", dir.display());
    let directory = LabDirectory::open(dir).map_err(|_| none())?;
    let record = Record::of_live_lab(&directory).ok_or_else(none)?;
    Ok((directory, record))
}
