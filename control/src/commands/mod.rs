//! The verbs, one file each: they read the command line, call the library and print.

pub mod ami;
mod atomic;
pub mod diagnose;
pub mod doctor;
pub mod down;
pub mod drift;
pub mod explain;
pub mod facts;
pub mod fleet;
pub mod kubeconfig;
pub mod plan;
pub mod pool;
mod removal;
pub mod render;
pub mod saved_plan;
pub mod schema;
mod session;
pub mod status;
pub mod sweep;
pub mod token;
pub mod up;
pub mod verify;
pub mod wait;

use contract::ExitCode;

use crate::cli::{Cli, Command, Global};
use crate::output::Printer;

/// What every verb is handed.
#[derive(Debug)]
pub struct Context<'a> {
    /// The global flags.
    pub global: &'a Global,
    /// Where all text goes.
    pub printer: &'a Printer,
}

/// Runs the verb.
///
/// # Errors
/// What the verb could not do; [`crate::failure::advice_of`] finds hint and exit code.
pub async fn run(cli: Cli, printer: &Printer) -> anyhow::Result<ExitCode> {
    let context = Context { global: &cli.global, printer };
    match cli.command {
        Command::Doctor(args) => doctor::run(&args, &context).await,
        Command::Plan(args) => plan::run(&args, &context).await,
        Command::Drift(args) => drift::run(&args, &context).await,
        Command::Up(args) => up::run(&args, &context).await,
        Command::Ami(args) => ami::run(&args.command, &context).await,
        Command::Pool(args) => pool::run(&args, &context).await,
        Command::Status(args) => status::run(&args, &context).await,
        Command::Diagnose(args) => diagnose::run(&args, &context).await,
        Command::Explain(args) => explain::run(&args, &context),
        Command::Schema(args) => schema::run(&args, &context),
        Command::Wait(args) => wait::run(&args, &context).await,
        Command::Verify(args) => verify::run(&args, &context).await,
        Command::Render(args) => render::run(&args.command, &context).await,
        Command::Facts(args) => facts::run(&args, &context).await,
        Command::Token(args) => token::run(&args, &context).await,
        Command::Kubeconfig(args) => kubeconfig::run(&args, &context).await,
        Command::Down(args) => down::run(&args, &context).await,
        Command::Sweep(args) => sweep::run(&args, &context).await,
    }
}
