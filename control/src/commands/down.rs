//! `control down`: takes the fleet away, top down, and counts what is left.

use contract::{ExitCode, StepOutcome};

use crate::cli::{DownArgs, Format};
use crate::commands::{Context, fleet, kubeconfig, removal, session};
use crate::output::Style;
use crate::output::progress::Progress;
use crate::stack::StackError;
use crate::stack::driver::{Walk, down};
use crate::stack::report::DownReport;

/// Runs the verb.
///
/// # Errors
/// When the fleet cannot be found, or a step failed.
pub async fn run(args: &DownArgs, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    session::must_be_able_to_ask(args.yes || args.dry_run, "down", context)?;
    let printer = context.printer;
    let found = fleet::find(&args.fleet, context.global).await?;
    let Some(name) = found.name.clone() else {
        let region = &found.clients.region;
        return finish(args, context, &nothing(), &format!("Nothing is owned in {region}."));
    };
    let progress = Progress::of_verb(printer, args.output.output);
    let world = session::world(found.clients, &name, progress.clone()).await?;
    if args.dry_run {
        let removal = down::look(&world).await?;
        let shown = removal::Shown { fleet: &name, count: removal.count(), removal: &removal };
        printer.data(args.output.output, &shown, removal::text)?;
        return Ok(ExitCode::Success);
    }
    if !args.yes {
        let removal = down::look(&world).await?;
        let shown = removal::Shown { fleet: &name, count: removal.count(), removal: &removal };
        printer.note(removal::text(&shown, printer.note_style()));
        if !printer.confirm(&format!("Remove the fleet `{name}` and all its nodes?")) {
            printer.note("Nothing was touched.");
            return Ok(ExitCode::Success);
        }
    }
    let Walk { report, stopped } = down::down(&world).await;
    progress.clear();
    if stopped.is_none() && report.leftovers == 0 {
        forget(&world.clients.region, &name, context);
    }
    let resume = format!("control down --fleet {name}");
    let code = finish(args, context, &report, &text(&report, &resume, printer.note_style()))?;
    match stopped {
        None => Ok(code),
        Some(StackError::Interrupted) => Ok(ExitCode::Interrupted),
        Some(error @ StackError::LeaseHeld { .. }) => Err(error.into()),
        Some(error) => {
            Err(anyhow::Error::new(error).context(format!("`{resume}` goes on from here")))
        }
    }
}

/// Takes the fleet out of the kubeconfig, where `control kubeconfig` has put it. A kubeconfig that
/// cannot be edited is no leftover in AWS: it is said, and `down` has still succeeded.
fn forget(region: &str, fleet: &str, context: &Context<'_>) {
    match kubeconfig::remove(region, fleet, None) {
        Ok(StepOutcome::Done) => {
            context.printer.note(format!("removed `{fleet}` from the kubeconfig"));
        }
        Ok(_) => {}
        Err(error) => context.printer.note(format!("the kubeconfig keeps `{fleet}`: {error:#}")),
    }
}

fn nothing() -> DownReport {
    DownReport {
        fleet: None,
        workloads: Vec::new(),
        layers: Vec::new(),
        deleted: 0,
        leftovers: 0,
        left: Vec::new(),
        blocks: Vec::new(),
        seconds: 0.0,
    }
}

fn finish(
    args: &DownArgs,
    context: &Context<'_>,
    report: &DownReport,
    said: &str,
) -> anyhow::Result<ExitCode> {
    match args.output.output {
        Format::Table => context.printer.note(said),
        format => context.printer.data(format, report, |_, _| String::new())?,
    }
    Ok(if report.leftovers == 0 { ExitCode::Success } else { ExitCode::LeftoversRemain })
}

/// The end, as a person reads it.
#[must_use]
pub fn text(report: &DownReport, resume: &str, style: Style) -> String {
    use StepOutcome::Degraded;
    let fleet = report.fleet.as_deref().unwrap_or("the fleet");
    let (deleted, took) = (report.deleted, style.dim(format!("{:.0} s", report.seconds)));
    let mut out = String::from("\n");
    for step in report.workloads.iter().filter(|step| matches!(step.outcome, Degraded(_))) {
        out.push_str(&format!("{} {}\n", style.yellow("!"), step.words()));
    }
    if report.leftovers == 0 {
        let gone = style.green("Gone");
        out.push_str(&format!("{gone}: {fleet}, {deleted} resources removed, 0 left  {took}\n"));
        return out;
    }
    out.push_str(&format!(
        "{}: {fleet}, {deleted} resources removed, {} still owned  {took}\n",
        style.red("Not gone"),
        report.leftovers
    ));
    for left in &report.left {
        out.push_str(&format!("    {} {}\n", left.kind, left.id));
    }
    out.push_str(&removal::held(&report.blocks, style));
    out.push_str(&format!("To go on: {resume}\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::report::Left;

    #[test]
    fn what_is_left_is_listed() {
        let mut report = DownReport { fleet: Some("prod".into()), deleted: 7, ..nothing() };
        assert!(
            text(&report, "", Style::PLAIN).contains("Gone: prod, 7 resources removed, 0 left")
        );
        report.left = vec![Left { kind: "vpc".into(), id: "vpc-1".into() }];
        report.leftovers = 1;
        let said = text(&report, "control down --fleet prod", Style::PLAIN);
        assert!(said.contains("vpc vpc-1") && said.contains("control down --fleet prod"), "{said}");
    }
}
