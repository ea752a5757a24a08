//! `control token`: prints a Kubernetes token.

use contract::ExitCode;

use crate::cli::TokenArgs;
use crate::commands::Context;
use crate::failure::Stated;

/// Runs the verb.
///
/// # Errors
/// Not built yet.
pub async fn run(_args: &TokenArgs, _context: &Context<'_>) -> anyhow::Result<ExitCode> {
    Err(Stated::new(ExitCode::Error, "`token` is not built yet").into())
}
