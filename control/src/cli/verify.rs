//! `control verify`.

use clap::{Args, ValueEnum};

use crate::cli::fleet::FleetArgs;

/// How `control verify` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum VerifyFormat {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
    /// JUnit's XML, one test case a check, for CI.
    Junit,
}

/// `control verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Which fleet.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Form of the data on stdout.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: VerifyFormat,
}
