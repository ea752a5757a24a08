//! The command line as clap sees it: types only, one file a verb. What a verb does stands in
//! `commands/`, under the same name.

mod ami;
mod diagnose;
mod doctor;
mod down;
mod drift;
mod explain;
mod facts;
mod fleet;
mod kubeconfig;
mod output;
mod plan;
mod pool;
mod render;
mod schema;
mod status;
mod sweep;
mod token;
mod up;
mod verify;
mod wait;

use clap::{Args, Parser, Subcommand};

pub use self::ami::{
    AmiArgs, AmiBake, AmiCheck, AmiCommand, AmiList, AmiPromote, AmiPrune, AmiResolve, AmiVars,
};
pub use self::diagnose::DiagnoseArgs;
pub use self::doctor::DoctorArgs;
pub use self::down::DownArgs;
pub use self::drift::DriftArgs;
pub use self::explain::ExplainArgs;
pub use self::facts::FactsArgs;
pub use self::fleet::{FileArgs, FleetArgs};
pub use self::kubeconfig::KubeconfigArgs;
pub use self::output::{Format, OutputArgs};
pub use self::plan::PlanArgs;
pub use self::pool::{PoolAdd, PoolArgs, PoolCommand, PoolCommon, PoolRm, PoolScale};
pub use self::render::{RenderArgs, RenderCommand, RenderUserData};
pub use self::schema::SchemaArgs;
pub use self::status::StatusArgs;
pub use self::sweep::SweepArgs;
pub use self::token::TokenArgs;
pub use self::up::UpArgs;
pub use self::verify::{VerifyArgs, VerifyFormat};
pub use self::wait::{Awaited, WaitArgs};

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
    /// Images of our own: bake them, list them, promote them into a channel.
    Ami(AmiArgs),
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

impl Command {
    /// The verb as it is typed.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Doctor(_) => "doctor",
            Self::Plan(_) => "plan",
            Self::Up(_) => "up",
            Self::Drift(_) => "drift",
            Self::Ami(_) => "ami",
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
            Self::Ami(args) => return args.command.format(),
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
