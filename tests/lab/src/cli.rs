//! The command line: types only.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::gear::{KubernetesGear, NodesGear};

/// EKS in a box: AWS, Kubernetes and GPU nodes on this machine, for control and rollcall-agent as
/// they are.
#[derive(Debug, Parser)]
#[command(name = "lab", version, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a lab and return once everything serves
    Up(Up),
    /// End a lab and check that nothing of it is left
    Down(Place),
    /// Show what runs, which parts are real, and every node
    Status(StatusArgs),
    /// Break a node or the world around it, or lift what was broken
    #[command(after_help = faults_help())]
    Fault(FaultArgs),
    /// Run a command inside a machine node, as root and with none of the caller's variables
    Exec(ExecArgs),
    /// Play the fault corpus: each reason with its injection, and healthy variants
    Corpus(CorpusArgs),
    /// Measure what the agent costs: joins with it and without, memory, size, how soon it names a fault
    Bench(BenchArgs),
    /// The lab itself; started by `up`
    #[command(hide = true)]
    Supervisor(SupervisorArgs),
}

/// Where the lab is.
#[derive(Debug, Args)]
pub struct Place {
    /// Directory of the lab
    #[arg(long, default_value = "target/lab")]
    pub dir: PathBuf,
}

/// How a lab is started.
#[derive(Debug, Args)]
pub struct Up {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Scale of all emulated durations: 1 is AWS's own pace, 0.01 makes 10 minutes 6 seconds
    #[arg(long, default_value_t = 0.02, value_parser = speed)]
    pub speed: f64,
    /// What serves the Kubernetes API
    #[arg(long, value_enum, default_value_t)]
    pub kubernetes: KubernetesGear,
    /// What a node is
    #[arg(long, value_enum, default_value_t)]
    pub nodes: NodesGear,
    /// Python with the emulator's packages [default: $LAB_PYTHON, else DIR/../venv/bin/python]
    #[arg(long)]
    pub python: Option<PathBuf>,
    /// The agent's tarball that the images have baked in
    #[arg(long, value_name = "TARBALL")]
    pub baked_agent: Option<PathBuf>,
}

/// How status is shown.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// What is broken.
#[derive(Debug, Args)]
pub struct FaultArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// POOL/INDEX as in `lab status`, or `all`; `list` shows what is broken
    pub target: String,
    /// The fault; `clear` lifts all of the target's, `clear:FAULT` one of them
    pub fault: Option<String>,
}

/// What runs where.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// POOL/INDEX as in `lab status`
    pub node: String,
    /// The command and its arguments; its exit code becomes this program's
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// The fault corpus.
#[derive(Debug, Args)]
pub struct CorpusArgs {
    /// Directory of the entries
    #[arg(long, default_value = "tests/corpus", global = true)]
    pub corpus: PathBuf,
    /// What to do with it.
    #[command(subcommand)]
    pub command: CorpusCommand,
}

/// What to do with the corpus.
#[derive(Debug, Subcommand)]
pub enum CorpusCommand {
    /// Show every case
    List,
    /// Play cases in a lab of their own; exits non-zero when one is not as expected
    Run(CorpusRun),
}

/// How cases are played.
#[derive(Debug, Args)]
pub struct CorpusRun {
    /// Cases or reasons [default: all]
    #[arg(value_name = "CASE")]
    pub cases: Vec<String>,
    /// Only the cases of CI's sample
    #[arg(long)]
    pub sample: bool,
    /// Directory of the lab
    #[arg(long, default_value = "target/corpus")]
    pub dir: PathBuf,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Lines,
    /// How many cases run at a time
    #[arg(short, long, default_value_t = 8)]
    pub jobs: usize,
    /// What serves the Kubernetes API
    #[arg(long, value_enum, default_value = "standin")]
    pub kubernetes: KubernetesGear,
    /// What a node is
    #[arg(long, value_enum, default_value = "process")]
    pub nodes: NodesGear,
    /// Python with the emulator's packages [default: as for up]
    #[arg(long)]
    pub python: Option<PathBuf>,
    /// The agent's tarball [default: the one beside this program]
    #[arg(long, value_name = "TARBALL")]
    pub baked_agent: Option<PathBuf>,
    /// Leave the lab up
    #[arg(long)]
    pub keep: bool,
}

/// What is measured.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The agent's binary, as it is released
    #[arg(long, default_value = "target/release/rollcall-agent")]
    pub agent: PathBuf,
    /// How many joins on each side
    #[arg(long, default_value_t = 15)]
    pub rounds: u32,
    /// Where the figures go
    #[arg(long, default_value = "target/bench/summary.json")]
    pub out: PathBuf,
    /// Directory of the lab
    #[arg(long, default_value = "target/bench/lab")]
    pub dir: PathBuf,
    /// The agent's tarball that the node boots with [default: the one beside this program]
    #[arg(long, value_name = "TARBALL")]
    pub baked_agent: Option<PathBuf>,
}

/// Form of output that comes line by line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Lines {
    /// For people.
    #[default]
    Table,
    /// A JSON object a line, for programs.
    Jsonl,
}

/// How the supervisor is started.
#[derive(Debug, Args)]
pub struct SupervisorArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// How, as JSON.
    #[arg(long)]
    pub options: String,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 10.0 => Ok(value),
        _ => Err("a number above 0 and up to 10".into()),
    }
}

fn faults_help() -> String {
    let mut help = String::from("Faults:\n");
    for (syntax, text) in crate::faults::EXPLAINED {
        help.push_str(&format!("  {syntax:<24} {text}\n"));
    }
    help.push_str(
        "\nA fault on a node that does not exist yet is remembered and laid on it before it boots.\n\
         A fault ends with its instance: the replacement is whole.",
    );
    help
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_fault_is_in_the_help() {
        let mut command = Cli::command();
        let fault = command.find_subcommand_mut("fault").unwrap();
        let help = fault.render_long_help().to_string();
        for (syntax, text) in crate::faults::EXPLAINED {
            assert!(help.contains(syntax), "{syntax}");
            let words = text.split_whitespace().last().unwrap();
            assert!(help.contains(words), "{syntax}: {words}");
        }
    }

    #[test]
    fn a_speed_that_stands_still_is_refused() {
        for bad in ["0", "-1", "11", "NaN", "fast"] {
            assert!(speed(bad).is_err(), "{bad}");
        }
        assert_eq!(speed("0.005"), Ok(0.005));
    }
}
