//! `control down`: takes the fleet down.

use contract::ExitCode;

use crate::cli::DownArgs;
use crate::commands::Context;
use crate::failure::Stated;

/// Runs the verb.
///
/// # Errors
/// Not built yet.
pub async fn run(_args: &DownArgs, _context: &Context<'_>) -> anyhow::Result<ExitCode> {
    Err(Stated::new(ExitCode::Error, "`down` is not built yet").into())
}
