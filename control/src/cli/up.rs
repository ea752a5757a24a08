//! `control up`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::fleet::FileArgs;
use crate::cli::output::OutputArgs;
use crate::stack::Layer;

/// `control up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// The fleet file.
    #[command(flatten)]
    pub fleet: FileArgs,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// Do what this plan of `plan --out` says, without asking; refuse when it no longer holds.
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Where what is known of a node is kept before it is replaced (`replaceFailed`); by default in
    /// the user's directory for state.
    #[arg(long, value_name = "DIR")]
    pub evidence: Option<PathBuf>,
    /// Build up to this layer and stop.
    #[arg(long, value_enum, value_name = "LAYER")]
    pub through: Option<Layer>,
    /// Build this layer alone, on those below as they are.
    #[arg(long, value_enum, value_name = "LAYER", conflicts_with = "through")]
    pub only: Option<Layer>,
    /// The agent's tarball for `agent: {publish: true}`; by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub agent_tarball: Option<PathBuf>,
    /// How the result is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}
