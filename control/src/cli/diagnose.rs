//! `control diagnose`.

use clap::Args;

use crate::cli::fleet::FleetArgs;
use crate::cli::output::OutputArgs;

/// `control diagnose`.
#[derive(Debug, Args)]
pub struct DiagnoseArgs {
    /// Instance id, Node name or `pool/index`; without it the whole fleet.
    #[arg(value_name = "NODE")]
    pub node: Option<String>,
    /// Which fleet.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}
