//! `control token`.

use clap::Args;

/// `control token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Name of the cluster, which is the fleet's.
    #[arg(long, value_name = "NAME", visible_alias = "cluster")]
    pub cluster_name: String,
    /// Print the bare token instead of an exec credential.
    #[arg(long)]
    pub raw: bool,
}
