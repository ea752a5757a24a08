//! `control doctor`.

use clap::Args;

use crate::cli::fleet::FileArgs;

/// `control doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The fleet file.
    #[command(flatten)]
    pub fleet: FileArgs,
}
