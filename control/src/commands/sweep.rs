//! `control sweep`: what earlier lives left in the account and no cluster claims any more. Fleets are
//! found by their tags and their names; what each of them left, by the walk that `down` would make.

use anyhow::Context as _;
use contract::ExitCode;
use serde::Serialize;

use crate::aws::{Clients, eks};
use crate::cli::{Format, SweepArgs};
use crate::commands::{Context, fleet, removal, session};
use crate::output::Style;
use crate::output::progress::Progress;
use crate::stack::driver::Walk;
use crate::stack::driver::down::{self, Removal};
use crate::stack::report::DownReport;
use crate::stack::{StackError, World};

/// What was found of one fleet.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    fleet: String,
    /// Whether it has a cluster: then it is `down`'s.
    alive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    removal: Option<Removal>,
    /// What was done about it; none when nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<DownReport>,
    /// Why it was not, or not wholly, removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<String>,
}

/// All that was found.
#[derive(Debug, Serialize)]
struct Swept {
    region: String,
    fleets: Vec<Found>,
    /// Things that are left.
    left: usize,
}

/// Runs the verb.
///
/// # Errors
/// When AWS does not answer.
pub async fn run(args: &SweepArgs, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let printer = context.printer;
    let clients = Clients::load(context.global.region.as_deref()).await?;
    let mut names = fleet::traces(&clients).await?;
    if let Some(only) = &args.fleet {
        names.retain(|name| name == only);
    }
    let mut fleets = Vec::new();
    for name in names {
        fleets.push(look(&clients, &name).await?);
    }
    if args.output.output == Format::Table {
        printer.note(found(&fleets, &clients.region, printer.note_style()));
    }
    let there = fleets.iter().filter_map(|found| found.removal.as_ref()).map(Removal::count);
    let mut left = there.sum();
    let asked = || printer.is_interactive() && printer.confirm("Remove them?");
    if left > 0 && (args.yes || asked()) {
        left = 0;
        for found in fleets.iter_mut().filter(|found| found.removal.is_some()) {
            left += remove(&clients, found, args.output.output, context).await?;
        }
    }
    let swept = Swept { region: clients.region.clone(), fleets, left };
    match args.output.output {
        Format::Table => printer.note(ended(&swept, printer.note_style())),
        format => printer.data(format, &swept, |_, _| String::new())?,
    }
    Ok(if left == 0 { ExitCode::Success } else { ExitCode::LeftoversRemain })
}

async fn world(clients: &Clients, fleet: &str, progress: Progress) -> anyhow::Result<World> {
    session::world(clients.clone(), fleet, progress).await
}

async fn look(clients: &Clients, name: &str) -> anyhow::Result<Found> {
    let mut found = Found {
        fleet: name.to_owned(),
        alive: eks::cluster(clients, name).await?.is_some(),
        removal: None,
        report: None,
        stopped: None,
    };
    if !found.alive {
        let world = world(clients, name, Progress::silent()).await?;
        let removal = down::look(&world).await;
        let removal = removal.with_context(|| format!("could not look for what `{name}` left"))?;
        found.removal = (removal.count() > 0).then_some(removal);
    }
    Ok(found)
}

/// Removes what a fleet left; how many things are left then.
async fn remove(
    clients: &Clients,
    found: &mut Found,
    format: Format,
    context: &Context<'_>,
) -> anyhow::Result<usize> {
    let printer = context.printer;
    let progress = Progress::of_verb(printer, format);
    let world = world(clients, &found.fleet, progress.clone()).await?;
    printer.note(format!("\n{}", found.fleet));
    let Walk { report, stopped } = down::down(&world).await;
    progress.clear();
    if let Some(StackError::Interrupted) = stopped {
        return Err(StackError::Interrupted.into());
    }
    let left = report.leftovers;
    found.stopped = stopped.map(|error| contract::ErrorChain(&error).to_string());
    found.report = Some(report);
    Ok(left)
}

/// What was found, fleet by fleet.
fn found(fleets: &[Found], region: &str, style: Style) -> String {
    let mut out = String::new();
    for Found { fleet, alive, removal, .. } in fleets {
        if *alive {
            let down = style.cyan(format!("control down --fleet {fleet}"));
            out.push_str(&format!("{} has a cluster and was not looked at: {down}\n", fleet));
        } else if let Some(removal) = removal {
            let count = removal.count();
            out.push_str(&format!("{} has no cluster, and {count} things\n", style.bold(fleet)));
            out.push_str(&removal::rows_of(removal, style));
            out.push_str(&removal::held(&removal.blocks, style));
        }
    }
    if fleets.iter().all(|found| found.removal.is_none()) {
        out.push_str(&format!("Nothing is left over in {region}.\n"));
    }
    out
}

/// How it ended.
fn ended(swept: &Swept, style: Style) -> String {
    let mut out = String::new();
    for Found { fleet, stopped, report, .. } in &swept.fleets {
        if let Some(why) = stopped {
            out.push_str(&format!("{} {fleet}: {why}\n", style.red("✗")));
        }
        if let Some(report) = report.as_ref().filter(|report| report.leftovers > 0) {
            out.push_str(&removal::held(&report.blocks, style));
        }
    }
    match (swept.left, swept.fleets.iter().any(|found| found.report.is_some())) {
        (0, true) => out.push_str(&format!("{}: 0 left\n", style.green("Swept"))),
        (0, false) => {}
        (left, _) => {
            let remove = style.cyan("control sweep --yes");
            out.push_str(&format!("{left} things are left; to remove them: {remove}\n"));
        }
    }
    out
}
