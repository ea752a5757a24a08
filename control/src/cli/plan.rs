//! `control plan`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::fleet::FileArgs;
use crate::cli::output::OutputArgs;

/// `control plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The fleet file.
    #[command(flatten)]
    pub fleet: FileArgs,
    /// The agent's tarball for `agent: {publish: true}`; by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub agent_tarball: Option<PathBuf>,
    /// Exit with 2 when there is something to change.
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// Give each step a row, with its reason.
    #[arg(long)]
    pub explain: bool,
    /// Keep the plan in this file, for `up --plan`.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// How the plan is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}
