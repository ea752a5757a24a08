//! `control kubeconfig`: prints or writes a kubeconfig.

use contract::ExitCode;

use crate::cli::KubeconfigArgs;
use crate::commands::Context;
use crate::failure::Stated;

/// Runs the verb.
///
/// # Errors
/// Not built yet.
pub async fn run(_args: &KubeconfigArgs, _context: &Context<'_>) -> anyhow::Result<ExitCode> {
    Err(Stated::new(ExitCode::Error, "`kubeconfig` is not built yet").into())
}
