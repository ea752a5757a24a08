//! `control doctor`: what stands in a fleet's way, before anything is touched. `up` asks it first.

use contract::ExitCode;

use crate::cli::DoctorArgs;
use crate::commands::{Context, session};
use crate::doctor;
use crate::output::progress::Progress;

/// Runs the verb.
///
/// # Errors
/// The fleet file's problems, what stands in the fleet's way, or what could not be read.
pub async fn run(args: &DoctorArgs, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let spec = session::spec(&args.fleet)?;
    let clients = session::clients(&spec, context).await?;
    let world = session::world(clients, &spec.name, Progress::silent()).await?;
    for doubt in doctor::examine(&world, &spec, &args.fleet.named()).await? {
        context.printer.note(doubt);
    }
    let fleet = &spec.name;
    context.printer.note(format!("Nothing stands in the way of {fleet}, as far as AWS tells."));
    Ok(ExitCode::Success)
}
