//! `control pool`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::fleet::FileArgs;
use crate::cli::output::OutputArgs;
use crate::config::spec::PoolClass;

/// `control pool`.
#[derive(Debug, Args)]
pub struct PoolArgs {
    /// What becomes of the pool.
    #[command(subcommand)]
    pub command: PoolCommand,
}

/// What becomes of a pool.
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// Add a pool.
    Add(PoolAdd),
    /// Give a pool another number of nodes.
    Scale(PoolScale),
    /// Remove a pool and its nodes.
    Rm(PoolRm),
}

impl PoolCommand {
    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Add(args) => &args.name,
            Self::Scale(args) => &args.name,
            Self::Rm(args) => &args.name,
        }
    }

    /// What all of them take.
    #[must_use]
    pub const fn common(&self) -> &PoolCommon {
        match self {
            Self::Add(args) => &args.common,
            Self::Scale(args) => &args.common,
            Self::Rm(args) => &args.common,
        }
    }
}

/// What every change of a pool takes.
#[derive(Debug, Args)]
pub struct PoolCommon {
    /// The fleet file, which is changed.
    #[command(flatten)]
    pub fleet: FileArgs,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// The agent's tarball for `agent: {publish: true}`; by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub agent_tarball: Option<PathBuf>,
    /// How the result is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `control pool add`.
#[derive(Debug, Args)]
pub struct PoolAdd {
    /// Name of the pool.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What it is for.
    #[arg(long, value_enum, value_name = "CLASS", default_value = "gpu")]
    pub class: PoolClass,
    /// EC2 instance type.
    #[arg(long, value_name = "TYPE")]
    pub instance_type: String,
    /// Number of nodes.
    #[arg(long, value_name = "N")]
    pub nodes: u32,
    /// Most nodes; by default as many as there are.
    #[arg(long, value_name = "N")]
    pub max: Option<u32>,
    /// What every change takes.
    #[command(flatten)]
    pub common: PoolCommon,
}

/// `control pool scale`.
#[derive(Debug, Args)]
pub struct PoolScale {
    /// Name of the pool.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Number of nodes. Its least and most move with it where they must.
    #[arg(value_name = "N")]
    pub nodes: u32,
    /// What every change takes.
    #[command(flatten)]
    pub common: PoolCommon,
}

/// `control pool rm`.
#[derive(Debug, Args)]
pub struct PoolRm {
    /// Name of the pool.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What every change takes.
    #[command(flatten)]
    pub common: PoolCommon,
}
