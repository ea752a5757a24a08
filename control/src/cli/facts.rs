//! `control facts`.

use clap::Args;

use crate::cli::fleet::FleetArgs;
use crate::cli::output::OutputArgs;

/// `control facts`.
#[derive(Debug, Args)]
pub struct FactsArgs {
    /// Which fleet.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// How they are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}
