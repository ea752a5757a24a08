//! The command line: `init`, `config check` and `config dump`, with nodeadm's options.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use super::config::ConfigError;
use super::enrich::Imds;
use super::init::{Init, InitError};
use super::sources;

#[derive(Debug, Parser)]
#[command(name = "nodeadm")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Initialise this instance as a node.
    Init {
        #[arg(long = "skip", short)]
        skip: Vec<String>,
        #[arg(long, short)]
        daemon: Vec<String>,
        #[arg(long, short, default_value = "imds://user-data")]
        config_source: Vec<String>,
        #[arg(long)]
        config_cache: Option<PathBuf>,
    },
    /// Manage configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Verify configuration.
    Check {
        #[arg(long, short, default_value = "imds://user-data")]
        config_source: Vec<String>,
    },
    /// Dump configuration.
    Dump {
        #[arg(long, short, default_value = "imds://user-data")]
        config_source: Vec<String>,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Source(#[from] sources::SourceError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Init(#[from] InitError),
}

pub(super) async fn run(root: &Path, arguments: &[String]) -> Result<(), CommandError> {
    let named = std::iter::once("nodeadm".to_owned()).chain(arguments.iter().cloned());
    let cli = Cli::try_parse_from(named).map_err(|e| CommandError::Usage(e.to_string()))?;
    match cli.command {
        Command::Init { skip, daemon, config_source, config_cache } => {
            for phase in &skip {
                if phase != "run" && phase != "config" {
                    return Err(CommandError::Usage(format!("unknown phase `{phase}`")));
                }
            }
            let phase_is_on = |phase: &str| !skip.iter().any(|s| s == phase);
            let daemon_is_on = |name: &str| daemon.is_empty() || daemon.iter().any(|d| d == name);
            let init = Init {
                root: root.to_owned(),
                sources: config_source,
                cache: config_cache,
                config: phase_is_on("config"),
                run: phase_is_on("run"),
                daemons: ["containerd", "kubelet"]
                    .into_iter()
                    .filter(|d| daemon_is_on(d))
                    .collect(),
            };
            Ok(init.run(&Imds::of_environment()).await?)
        }
        Command::Config { command: ConfigCommand::Check { config_source } } => {
            let spec = sources::load(root, &config_source, &Imds::of_environment()).await?;
            Ok(spec.validate()?)
        }
        Command::Config { command: ConfigCommand::Dump { config_source } } => {
            let spec = sources::load(root, &config_source, &Imds::of_environment()).await?;
            let kind = ("node.eks.aws/v1alpha1", "NodeConfig");
            let dump = serde_json::json!({"kind": kind.1, "apiVersion": kind.0, "spec": spec});
            crate::output::data(&dump.to_string());
            Ok(())
        }
    }
}
