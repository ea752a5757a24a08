//! `control explain`: says what a reason means.

use contract::ExitCode;

use crate::cli::ExplainArgs;
use crate::commands::Context;
use crate::failure::Stated;

/// Runs the verb.
///
/// # Errors
/// Not built yet.
pub fn run(_args: &ExplainArgs, _context: &Context<'_>) -> anyhow::Result<ExitCode> {
    Err(Stated::new(ExitCode::Error, "`explain` is not built yet").into())
}
