//! `control kubeconfig`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::fleet::FleetArgs;

/// `control kubeconfig`.
#[derive(Debug, Args)]
pub struct KubeconfigArgs {
    /// Which fleet.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Merge into this file; without it the first of $KUBECONFIG, else ~/.kube/config; `-` prints.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}
