//! `control drift`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::fleet::FileArgs;
use crate::cli::output::OutputArgs;

/// `control drift`.
#[derive(Debug, Args)]
pub struct DriftArgs {
    /// The fleet file.
    #[command(flatten)]
    pub fleet: FileArgs,
    /// The agent's tarball for `agent: {publish: true}`; by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub agent_tarball: Option<PathBuf>,
    /// Exit with 2 when something has drifted.
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}
