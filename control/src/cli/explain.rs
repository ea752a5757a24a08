//! `control explain`.

use clap::Args;

use crate::cli::output::OutputArgs;

/// `control explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The reason, such as `DriverLibraryMismatch`; without it all of them.
    #[arg(value_name = "REASON")]
    pub reason: Option<String>,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}
