//! `control facts`: prints the cluster's facts.

use contract::ExitCode;

use crate::cli::FactsArgs;
use crate::commands::Context;
use crate::failure::Stated;

/// Runs the verb.
///
/// # Errors
/// Not built yet.
pub async fn run(_args: &FactsArgs, _context: &Context<'_>) -> anyhow::Result<ExitCode> {
    Err(Stated::new(ExitCode::Error, "`facts` is not built yet").into())
}
