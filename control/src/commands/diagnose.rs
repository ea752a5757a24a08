//! `control diagnose`: says why a node did not come.

use contract::ExitCode;

use crate::cli::DiagnoseArgs;
use crate::commands::Context;
use crate::failure::Stated;

/// Runs the verb.
///
/// # Errors
/// Not built yet.
pub async fn run(_args: &DiagnoseArgs, _context: &Context<'_>) -> anyhow::Result<ExitCode> {
    Err(Stated::new(ExitCode::Error, "`diagnose` is not built yet").into())
}
