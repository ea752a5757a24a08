//! `control up`: builds the fleet, layer by layer, each on the proof of the one below.

use contract::{ExitCode, Reason};

use crate::cli::{Format, UpArgs};
use crate::commands::plan::{self, Plan};
use crate::commands::saved_plan::SavedPlan;
use crate::commands::{Context, session};
use crate::doctor;
use crate::output::Style;
use crate::output::progress::Progress;
use crate::stack::driver::{self, Reach, Walk};
use crate::stack::report::{Outcome, UpReport};
use crate::stack::{Layer, StackError};

/// Runs the verb.
///
/// # Errors
/// The fleet file's problems, or the step that failed.
pub async fn run(args: &UpArgs, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let spec = session::spec(&args.fleet)?;
    let saved = args.plan.as_deref().map(SavedPlan::read).transpose()?;
    session::must_be_able_to_ask(args.yes || saved.is_some(), "up", context)?;
    let printer = context.printer;
    let clients = session::clients(&spec, context).await?;
    let progress = Progress::of_verb(printer, args.output.output);
    let mut world = session::world(clients, &spec.name, progress.clone()).await?;
    if let Some(place) = &args.evidence {
        world.evidence.clone_from(place);
    }
    for doubt in doctor::examine(&world, &spec, &args.fleet.named()).await? {
        printer.note(doubt);
    }
    let inputs = session::inputs(&world, spec, args.agent_tarball.as_deref()).await?;
    // With `--yes` as well: what contradicts the world is said before anything is touched.
    let plan = Plan::of(&world.scope.fleet, driver::plan(&world, inputs.clone()).await?);
    if let Some(saved) = &saved {
        saved.must_hold(&world.scope, &plan)?;
    } else if !args.yes {
        printer.note(plan::text(&plan, printer.note_style()));
        if !plan.is_empty() && !printer.confirm("Build it?") {
            printer.note("Nothing was touched.");
            return Ok(ExitCode::Success);
        }
    }
    let reach = match (args.only, args.through) {
        (Some(layer), _) => Reach::Only(layer),
        (None, through) => Reach::Through(through.unwrap_or(Layer::Gpu)),
    };
    let Walk { report, stopped } = driver::up(&world, inputs, reach).await;
    progress.clear();
    let resume = format!("control up {}", args.fleet.again());
    match args.output.output {
        Format::Table => printer.note(text(&report, &resume, printer.note_style())),
        format => printer.data(format, &report, |_, _| String::new())?,
    }
    match stopped {
        Some(StackError::Interrupted) | None => Ok(report.outcome.exit_code()),
        Some(error @ StackError::LeaseHeld { .. }) => Err(error.into()),
        Some(error) => {
            Err(anyhow::Error::new(error).context(format!("`{resume}` goes on from here")))
        }
    }
}

/// The end, as a person reads it.
#[must_use]
pub fn text(report: &UpReport, resume: &str, style: Style) -> String {
    let UpReport { fleet, nodes, seconds, .. } = report;
    let took = style.dim(format!("{seconds:.0} s"));
    let mut out = String::from("\n");
    match report.outcome {
        Outcome::Ready if report.changed == 0 => {
            let all = style.green("Unchanged");
            out.push_str(&format!(
                "{all}: {fleet} is as asked, {} nodes ready  {took}\n",
                nodes.ready
            ));
        }
        Outcome::Ready => {
            let ready = style.green("Ready");
            let (changed, nodes) = (report.changed, nodes.ready);
            out.push_str(&format!(
                "{ready}: {fleet}, {changed} changes, {nodes} nodes ready  {took}\n"
            ));
        }
        Outcome::Partial => {
            let failed = style.red(format!(
                "{} of {} nodes failed",
                nodes.failed,
                nodes.ready + nodes.failed
            ));
            out.push_str(&format!("{failed}; {} are ready  {took}\n", nodes.ready));
        }
        Outcome::TimedOut => {
            let late = style.red("Timed out");
            out.push_str(&format!(
                "{late}: a gate has not opened; {resume} asks it again  {took}\n"
            ));
        }
        Outcome::Interrupted => {
            let interrupted = style.yellow("Interrupted");
            out.push_str(&format!(
                "{interrupted}: what was made stays. To go on: {resume}; to undo: control down\n"
            ));
        }
        Outcome::Failed => {
            out.push_str(&format!(
                "{}: what was made stays. To undo: control down\n",
                style.red("Failed")
            ));
        }
    }
    out.push_str(&details(report, style));
    out
}

/// Nodes that were replaced, and those that failed, by reason.
fn details(report: &UpReport, style: Style) -> String {
    let mut out = String::new();
    for one in &report.replaced {
        let (place, reason) = (one.evidence.display(), style.bold(&one.reason));
        out.push_str(&format!(
            "\n  {} replaced {} of {}: {reason}\n    {place}\n",
            style.yellow("!"),
            one.instance,
            one.pool
        ));
    }
    for (reason, instances) in &report.reasons {
        out.push_str(&format!("\n  {} {}\n", style.red("✗"), style.bold(reason)));
        if let Ok(known) = reason.parse::<Reason>() {
            out.push_str(&format!("    {}\n", known.entry().meaning));
        }
        for of in instances {
            // What was never launched has no instance to ask: its pool stands for it.
            let line = match of.starts_with("i-") {
                true => style.cyan(format!("control diagnose {of}")),
                false => format!("pool {of}"),
            };
            out.push_str(&format!("    {line}\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::stack::report::Counts;

    fn report(outcome: Outcome, changed: usize) -> UpReport {
        UpReport {
            fleet: "prod".into(),
            outcome,
            layers: vec![],
            changed,
            nodes: Counts { ready: 4, failed: 0, joining: 0 },
            pools: vec![],
            reasons: BTreeMap::new(),
            replaced: vec![],
            seconds: 12.0,
        }
    }

    #[test]
    fn the_end_says_how_it_stands_and_what_to_do() {
        let say = |report: &UpReport| text(report, "control up -f fleet.yaml", Style::PLAIN);
        assert!(say(&report(Outcome::Ready, 0)).contains("Unchanged: prod is as asked, 4 nodes"));
        assert!(say(&report(Outcome::Interrupted, 3)).contains("control up -f fleet.yaml"));
        let mut partial = report(Outcome::Partial, 3);
        partial.nodes.failed = 1;
        partial.reasons.insert("GpuCountShort".into(), vec!["i-0abc".into()]);
        let said = say(&partial);
        assert!(said.contains("1 of 5 nodes failed; 4 are ready"), "{said}");
        assert!(said.contains("control diagnose i-0abc"), "{said}");
    }
}
