//! `control ami`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::ami::prune;
use crate::cli::fleet::FileArgs;
use crate::cli::output::{Format, OutputArgs};
use crate::cli::wait::duration;

/// `control ami`.
#[derive(Debug, Args)]
pub struct AmiArgs {
    /// What becomes of an image.
    #[command(subcommand)]
    pub command: AmiCommand,
}

/// What becomes of an image, in the order in which an operator meets it.
#[derive(Debug, Subcommand)]
pub enum AmiCommand {
    /// Find the images that definitions are made from.
    Resolve(AmiResolve),
    /// Print a definition as Packer's variables, and ask nobody.
    Vars(AmiVars),
    /// Make an image: run Packer, and verify what it made.
    Bake(AmiBake),
    /// List the images that were baked.
    List(AmiList),
    /// Say whether an image fits a fleet's pools.
    Check(AmiCheck),
    /// Put an image into a channel, in the place of the one before.
    Promote(AmiPromote),
    /// Remove images that nothing uses.
    Prune(AmiPrune),
}

impl AmiCommand {
    /// How its data is printed, where that can be chosen.
    #[must_use]
    pub const fn format(&self) -> Option<Format> {
        Some(match self {
            Self::Resolve(args) => args.output.output,
            Self::Vars(_) => return None,
            Self::Bake(args) => args.output.output,
            Self::List(args) => args.output.output,
            Self::Check(args) => args.output.output,
            Self::Promote(args) => args.output.output,
            Self::Prune(args) => args.output.output,
        })
    }
}

/// `control ami resolve`.
#[derive(Debug, Args)]
pub struct AmiResolve {
    /// Definitions: files of `amis/`.
    #[arg(value_name = "DEFINITION", required = true)]
    pub definitions: Vec<PathBuf>,
    /// How they are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `control ami vars`.
#[derive(Debug, Args)]
pub struct AmiVars {
    /// The definition: a file of `amis/`.
    #[arg(value_name = "DEFINITION")]
    pub definition: PathBuf,
    /// The source image, which `resolve` finds.
    #[arg(long, value_name = "IMAGE")]
    pub source_ami: String,
    /// The agent's tarball; by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub agent_tarball: Option<PathBuf>,
    /// What the agent in it says of its version; by default this program's own.
    #[arg(long, value_name = "VERSION")]
    pub agent_version: Option<String>,
}

/// `control ami bake`.
#[derive(Debug, Args)]
pub struct AmiBake {
    /// The definition: a file of `amis/`.
    #[arg(value_name = "DEFINITION")]
    pub definition: PathBuf,
    /// The agent's tarball; by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub agent_tarball: Option<PathBuf>,
    /// What the agent in it says of its version; by default this program's own.
    #[arg(long, value_name = "VERSION")]
    pub agent_version: Option<String>,
    /// Packer.
    #[arg(long, value_name = "PROGRAM", default_value = "packer")]
    pub packer: PathBuf,
    /// Directory of the template.
    #[arg(long, value_name = "DIR", default_value = "packer")]
    pub template: PathBuf,
    /// More of Packer's variables, such as the place that the build runs in: a file.
    #[arg(long, value_name = "FILE")]
    pub var_file: Vec<PathBuf>,
    /// More of Packer's variables: `subnet_id=subnet-…`.
    #[arg(long, value_name = "NAME=VALUE")]
    pub var: Vec<String>,
    /// Where the record of what was made is kept; by default `built/` beside the definition.
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// The longest that the build may take: `40m`.
    #[arg(long, value_name = "DURATION", default_value = "60m", value_parser = duration)]
    pub timeout: Duration,
    /// How the result is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `control ami list`.
#[derive(Debug, Args)]
pub struct AmiList {
    /// Those of this definition alone.
    #[arg(long, value_name = "NAME")]
    pub definition: Option<String>,
    /// Those in this channel alone.
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Option<String>,
    /// How they are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `control ami check`.
#[derive(Debug, Args)]
pub struct AmiCheck {
    /// The image's id.
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// This pool alone.
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,
    /// The fleet file.
    #[command(flatten)]
    pub fleet: FileArgs,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `control ami promote`.
#[derive(Debug, Args)]
pub struct AmiPromote {
    /// The channel: `stable`.
    #[arg(value_name = "CHANNEL")]
    pub channel: String,
    /// The image's id. To go back, name the earlier one.
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Even one that was never verified.
    #[arg(long)]
    pub force: bool,
    /// How the result is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `control ami prune`.
#[derive(Debug, Args)]
pub struct AmiPrune {
    /// The newest of each definition that stay in any case.
    #[arg(long, value_name = "N", default_value_t = prune::KEEP)]
    pub keep: usize,
    /// Say what would go, and touch nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// How the result is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::ami::bake;
    use crate::cli::{Cli, Command};

    #[test]
    fn a_bake_takes_as_long_as_it_may() {
        let cli = Cli::parse_from(["control", "ami", "bake", "amis/x.yaml"]);
        let Command::Ami(AmiArgs { command: AmiCommand::Bake(args) }) = cli.command else {
            panic!()
        };
        assert_eq!(args.timeout, bake::LONGEST);
    }
}
