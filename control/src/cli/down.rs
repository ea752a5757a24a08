//! `control down`.

use clap::Args;

use crate::cli::fleet::FleetArgs;
use crate::cli::output::OutputArgs;

/// `control down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    /// Which fleet.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Show what would be removed and what holds what, and touch nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// How the result is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}
