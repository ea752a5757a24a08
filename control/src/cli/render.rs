//! `control render`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::fleet::FileArgs;

/// `control render`.
#[derive(Debug, Args)]
pub struct RenderArgs {
    /// What to print.
    #[command(subcommand)]
    pub command: RenderCommand,
}

/// What `control render` prints.
#[derive(Debug, Subcommand)]
pub enum RenderCommand {
    /// The MIME user data of a pool's nodes.
    UserData(RenderUserData),
}

/// `control render user-data`.
#[derive(Debug, Args)]
pub struct RenderUserData {
    /// Name of the pool.
    #[arg(value_name = "POOL")]
    pub pool: String,
    /// Say of each value where it comes from, instead.
    #[arg(long)]
    pub explain: bool,
    /// The fleet file.
    #[command(flatten)]
    pub fleet: FileArgs,
    /// The agent's tarball for `agent: {publish: true}`; by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub agent_tarball: Option<PathBuf>,
}
