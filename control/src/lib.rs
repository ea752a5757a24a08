//! `control` builds an EKS cluster and its GPU pools from outside, and says why a node did not come.
//!
//! A verb's way: [`cli`] (what was typed) → [`commands`] (one file a verb) → [`config`] (the fleet
//! file, as meant) → [`stack`] (layers in order: observe → plan → apply → gate) → [`layers`]
//! (`desired` and `plan` are pure, `observe`, `apply` and `gate` touch the world). [`launch`] and
//! [`user_data`] render what a node boots from, [`ami`] makes images of our own; [`aws`] and [`kube`] hold the clients, `output` the
//! screens.
//!
//! There is no state file: truth is what AWS answers, found by deterministic names and tags.

pub mod ami;
pub mod cli;
pub mod commands;
pub mod config;
pub mod diagnose;
pub mod doctor;
pub mod stack;
pub mod verify;

pub mod launch;
pub mod layers;
pub mod user_data;

pub mod aws;
pub mod failure;
pub mod kube;
pub mod output;

use contract::ExitCode;

/// Runs one command line to its end and says how it ended.
pub fn run(cli: cli::Cli) -> ExitCode {
    output::log::init(cli.global.verbose);
    let printer = output::Printer::for_process(cli.command.name());
    let lines = cli.command.format() == Some(cli::Format::Jsonl);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            printer.error(&anyhow::Error::new(error).context("could not start the async runtime"));
            return ExitCode::Error;
        }
    };
    if lines {
        printer.begin();
    }
    let (code, error) = match runtime.block_on(commands::run(cli, &printer)) {
        Ok(code) => (code, None),
        Err(error) => {
            printer.error(&error);
            let advice = failure::advice_of(&error);
            (advice.map_or(ExitCode::Error, failure::Advice::exit_code), Some(error))
        }
    };
    if lines {
        printer.end(code, error.as_ref());
    }
    code
}
