//! The command line as clap sees it: types only. What a verb does stands in `commands/`, one file
//! each.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::stack::Layer;

/// Builds an EKS cluster and its GPU pools layer by layer, and says why when a node does not come.
#[derive(Debug, Parser)]
#[command(name = "control", version, propagate_version = true, disable_help_subcommand = true)]
pub struct Cli {
    /// What holds for every verb.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every verb.
#[derive(Clone, Debug, Default, Args)]
pub struct Global {
    /// AWS region; without it the fleet file's, else the one of the environment or profile.
    #[arg(long, global = true, value_name = "REGION")]
    pub region: Option<String>,
    /// Say more on stderr; twice for the AWS SDK's and Kubernetes client's own lines.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The verbs, in the order in which an operator meets them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what stands in a fleet's way, and touch nothing.
    Doctor(DoctorArgs),
    /// Show what `up` would do, and touch nothing.
    Plan(PlanArgs),
    /// Build the fleet, layer by layer, and prove each layer before the next.
    Up(UpArgs),
    /// Show what of a running fleet is not as its file asks, and touch nothing.
    Drift(DriftArgs),
    /// Show the fleet as it is now: layers, nodes, reasons.
    Status(StatusArgs),
    /// Say why a node did not come, or give the fleet's histogram of reasons.
    Diagnose(DiagnoseArgs),
    /// Say what a reason means and what to do about it.
    Explain(ExplainArgs),
    /// Print the JSON Schema of fleet files, for editors.
    Schema,
    /// Print the cluster's facts: endpoint, CA, roles, service CIDR.
    Facts(FactsArgs),
    /// Print a Kubernetes token for the cluster: an exec credential.
    Token(TokenArgs),
    /// Merge the fleet into the kubeconfig, with `control token` in place of the AWS CLI.
    Kubeconfig(KubeconfigArgs),
    /// Take the fleet down, top to bottom, and count what is still owned.
    Down(DownArgs),
    /// Find what an earlier life of a fleet left in the account, and with --yes remove it.
    Sweep(SweepArgs),
}

/// How data is printed on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct OutputArgs {
    /// Form of the data on stdout.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}

/// Which fleet, for verbs that need no fleet file.
#[derive(Clone, Debug, Default, Args)]
pub struct FleetArgs {
    /// Fleet file; `-` reads stdin.
    #[arg(short, long, value_name = "FILE", conflicts_with = "fleet")]
    pub file: Option<PathBuf>,
    /// Name of the fleet; without it the only one that exists in the region.
    #[arg(long, value_name = "NAME")]
    pub fleet: Option<String>,
}

/// The fleet file, and what is laid over it.
#[derive(Clone, Debug, Default, Args)]
pub struct FileArgs {
    /// Fleet file; `-` reads stdin. Further ones are laid over the first: fields replace fields, pools
    /// of a name are joined.
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Set one value over all files: `network.zones=3`, `pools.h100.size.desired=8`.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
}

impl FileArgs {
    /// How the file is called in messages.
    #[must_use]
    pub fn named(&self) -> String {
        let files = self.files.iter().map(|file| file.display().to_string());
        files.collect::<Vec<_>>().join(" + ")
    }

    /// The same arguments as somebody types them again.
    #[must_use]
    pub fn again(&self) -> String {
        let files = self.files.iter().map(|file| format!("-f {}", file.display()));
        let sets = self.sets.iter().map(|set| format!("--set '{set}'"));
        files.chain(sets).collect::<Vec<_>>().join(" ")
    }
}

/// `control doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The fleet file.
    #[command(flatten)]
    pub fleet: FileArgs,
}

/// `control plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The fleet file.
    #[command(flatten)]
    pub fleet: FileArgs,
    /// The agent's tarball for `agent: {publish: true}`; by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub agent_tarball: Option<PathBuf>,
    /// Exit with 2 when there is something to change.
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// Give each step a row, with its reason.
    #[arg(long)]
    pub explain: bool,
    /// Keep the plan in this file, for `up --plan`.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// How the plan is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `control drift`.
#[derive(Debug, Args)]
pub struct DriftArgs {
    /// The fleet file.
    #[command(flatten)]
    pub fleet: FileArgs,
    /// The agent's tarball for `agent: {publish: true}`; by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub agent_tarball: Option<PathBuf>,
    /// Exit with 2 when something has drifted.
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

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

/// `control status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Which fleet.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `control diagnose`.
#[derive(Debug, Args)]
pub struct DiagnoseArgs {
    /// Instance id, Node name or `pool/index`; without it the whole fleet.
    #[arg(value_name = "NODE")]
    pub node: Option<String>,
    /// Which fleet.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `control explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The reason, such as `DriverLibraryMismatch`; without it all of them.
    #[arg(value_name = "REASON")]
    pub reason: Option<String>,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `control facts`.
#[derive(Debug, Args)]
pub struct FactsArgs {
    /// Which fleet.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// How they are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

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

/// `control sweep`.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Look for this fleet alone.
    #[arg(long, value_name = "NAME")]
    pub fleet: Option<String>,
    /// Remove what was found.
    #[arg(short, long)]
    pub yes: bool,
    /// How the result is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `control down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    /// Which fleet.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Show what would be removed and what holds what, and touch nothing.
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
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_and_argument_says_what_it_is() {
        for verb in Cli::command().get_subcommands() {
            assert!(verb.get_about().is_some(), "`{}` says nothing", verb.get_name());
            for argument in verb.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "`{} {}`",
                    verb.get_name(),
                    argument.get_id()
                );
            }
        }
    }
}
