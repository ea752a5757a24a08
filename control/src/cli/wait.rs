//! `control wait`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::fleet::FleetArgs;
use crate::cli::output::OutputArgs;

/// What `control wait` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Awaited {
    /// ACTIVE, TLS with its CA, an authenticated and authorised call.
    Cluster,
    /// Every node of every pool Ready with its GPUs proven, or with a reason.
    Nodes,
}

/// `control wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// What to wait for.
    #[arg(value_enum, value_name = "WHAT")]
    pub what: Awaited,
    /// Which fleet.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// How long: `15m`, `90s`.
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = duration)]
    pub timeout: Duration,
    /// How the result is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A duration as typed.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| "such as `15m` or `90s`")?;
    Duration::try_from(span).map_err(|_| "it cannot be negative".to_owned())
}
