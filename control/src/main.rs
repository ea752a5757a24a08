//! `control`: parses, sets up the log, hands over to the library, ends with a documented code.

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use control::cli::Cli;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    control::run(cli).into()
}

/// Help and version go to stdout and succeed; the rest is wrong usage, 64 instead of clap's 2,
/// which here means that changes are pending.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell when the terminal itself is gone.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => contract::ExitCode::Success.into(),
        _ => contract::ExitCode::Usage.into(),
    }
}
