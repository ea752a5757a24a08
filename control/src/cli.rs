//! The command line as clap sees it: types only. What a verb does stands in `commands/`, one file
//! each.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::spec::PoolClass;
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
    /// Add, resize or remove one pool: in the fleet file, then in the fleet, and nothing else.
    Pool(PoolArgs),
    /// Show the fleet as it is now: layers, nodes, reasons.
    Status(StatusArgs),
    /// Say why a node did not come, or give the fleet's histogram of reasons.
    Diagnose(DiagnoseArgs),
    /// Say what a reason means and what to do about it.
    Explain(ExplainArgs),
    /// Print the JSON Schema of fleet files, for editors, or of the lines of -o jsonl.
    Schema(SchemaArgs),
    /// Wait until the cluster answers, or until every node has its verdict.
    Wait(WaitArgs),
    /// Check a running fleet: cluster, API, nodes, GPUs, pods, images, orphans.
    Verify(VerifyArgs),
    /// Print what nodes would be handed, and where each value of it comes from.
    Render(RenderArgs),
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
    /// Lines of JSON, as things happen (`control schema --events`).
    Jsonl,
}

impl Command {
    /// The verb as it is typed.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Doctor(_) => "doctor",
            Self::Plan(_) => "plan",
            Self::Up(_) => "up",
            Self::Drift(_) => "drift",
            Self::Pool(_) => "pool",
            Self::Status(_) => "status",
            Self::Diagnose(_) => "diagnose",
            Self::Explain(_) => "explain",
            Self::Schema(_) => "schema",
            Self::Wait(_) => "wait",
            Self::Verify(_) => "verify",
            Self::Render(_) => "render",
            Self::Facts(_) => "facts",
            Self::Token(_) => "token",
            Self::Kubeconfig(_) => "kubeconfig",
            Self::Down(_) => "down",
            Self::Sweep(_) => "sweep",
        }
    }

    /// How its data is printed, where that can be chosen.
    #[must_use]
    pub const fn format(&self) -> Option<Format> {
        Some(match self {
            Self::Plan(args) => args.output.output,
            Self::Up(args) => args.output.output,
            Self::Drift(args) => args.output.output,
            Self::Pool(args) => args.command.common().output.output,
            Self::Status(args) => args.output.output,
            Self::Diagnose(args) => args.output.output,
            Self::Explain(args) => args.output.output,
            Self::Wait(args) => args.output.output,
            Self::Facts(args) => args.output.output,
            Self::Down(args) => args.output.output,
            Self::Sweep(args) => args.output.output,
            Self::Doctor(_) | Self::Schema(_) | Self::Verify(_) | Self::Render(_) => return None,
            Self::Token(_) | Self::Kubeconfig(_) => return None,
        })
    }
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
    /// Where what is known of a node is kept before it is replaced (`replaceFailed`); by default in
    /// the user's directory for state.
    #[arg(long, value_name = "DIR")]
    pub evidence: Option<PathBuf>,
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

/// `control schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// The lines of -o jsonl instead of fleet files.
    #[arg(long)]
    pub events: bool,
}

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

fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| "such as `15m` or `90s`")?;
    Duration::try_from(span).map_err(|_| "it cannot be negative".to_owned())
}

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
