//! `control sweep`.

use clap::Args;

use crate::cli::output::OutputArgs;

/// `control sweep`.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Look for this fleet alone.
    #[arg(long, value_name = "NAME")]
    pub fleet: Option<String>,
    /// Remove what was found.
    #[arg(short, long)]
    pub yes: bool,
    /// How the result is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}
