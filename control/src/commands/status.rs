//! `control status`: shows the fleet as it is now.

use contract::ExitCode;

use crate::cli::StatusArgs;
use crate::commands::Context;
use crate::failure::Stated;

/// Runs the verb.
///
/// # Errors
/// Not built yet.
pub async fn run(_args: &StatusArgs, _context: &Context<'_>) -> anyhow::Result<ExitCode> {
    Err(Stated::new(ExitCode::Error, "`status` is not built yet").into())
}
