//! `control status`.

use clap::Args;

use crate::cli::fleet::FleetArgs;
use crate::cli::output::OutputArgs;

/// `control status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Which fleet.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}
