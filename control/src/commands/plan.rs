//! `control plan`: shows what `up` would do.

use contract::ExitCode;

use crate::cli::PlanArgs;
use crate::commands::Context;
use crate::failure::Stated;

/// Runs the verb.
///
/// # Errors
/// Not built yet.
pub async fn run(_args: &PlanArgs, _context: &Context<'_>) -> anyhow::Result<ExitCode> {
    Err(Stated::new(ExitCode::Error, "`plan` is not built yet").into())
}
