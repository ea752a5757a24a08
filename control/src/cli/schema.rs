//! `control schema`.

use clap::Args;

/// `control schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// The lines of -o jsonl instead of fleet files.
    #[arg(long)]
    pub events: bool,
}
