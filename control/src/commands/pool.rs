//! `control pool`: adds, resizes or removes one pool of a running fleet. The fleet file is changed
//! first, in its own words, so that it stays the truth; then that pool is brought to it, and nothing
//! else of the fleet is touched, however it may have drifted.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use contract::ExitCode;

use crate::cli::{FileArgs, Format, PoolAdd, PoolArgs, PoolCommand, PoolCommon};
use crate::commands::plan::{self, Plan};
use crate::commands::{Context, session, up};
use crate::config::edit::{self, resized};
use crate::config::{self, FleetSpec};
use crate::failure::Stated;
use crate::output::progress::Progress;
use crate::stack::driver::{self, OnePool, PlannedLayer, Walk};
use crate::stack::{Layer, StackError};

/// Runs the verb.
///
/// # Errors
/// The fleet file's problems, a file that is written in a way that cannot be changed here, or the step
/// that failed.
pub async fn run(args: &PoolArgs, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let common = args.command.common();
    session::must_be_able_to_ask(common.yes, "pool", context)?;
    let before = session::spec(&common.fleet)?;
    let edit = Edit::of(&args.command, &before)?;
    let wanted = config::load(&edit.files_with(&common.fleet), &common.fleet.sets);
    // The file beside it has served its purpose, whatever it says.
    edit.forget();
    let after = wanted.with_context(|| {
        Stated::new(ExitCode::PreflightBlocked, "the fleet file would have mistakes after that")
            .with_hint("nothing was touched; say it otherwise, or edit the file and run control up")
    })?;
    only_that_changes(&before, &after, args.command.name(), &edit)?;
    walk(common, edit, after, args.command.name(), context).await
}

async fn walk(
    common: &PoolCommon,
    edit: Edit,
    after: FleetSpec,
    pool: &str,
    context: &Context<'_>,
) -> anyhow::Result<ExitCode> {
    let printer = context.printer;
    let clients = session::clients(&after, context).await?;
    let progress = Progress::of_verb(printer, common.output.output);
    let world = session::world(clients, &after.name, progress.clone()).await?;
    let inputs = session::inputs(&world, after, common.agent_tarball.as_deref()).await?;
    let one = OnePool { name: pool.to_owned(), layer: edit.layer };
    let steps = driver::plan_pool(&world, inputs.clone(), &one).await?;
    let plan = Plan::of(&world.scope.fleet, vec![PlannedLayer { layer: edit.layer, steps }]);
    let line = edit::first_difference(&edit.before, &edit.after);
    let place = format!("{}:{line}", edit.path.display());
    if !common.yes {
        printer.note(format!("  {place} will say so\n{}", plan::text(&plan, printer.note_style())));
        if !printer.confirm("Do it?") {
            printer.note("Nothing was touched.");
            return Ok(ExitCode::Success);
        }
    }
    if edit.before != edit.after {
        edit.write()?;
        printer.note(format!("wrote {place}"));
    }
    let Walk { report, stopped } = driver::up_pool(&world, inputs, &one).await;
    progress.clear();
    let resume = format!("control up {}", common.fleet.again());
    match common.output.output {
        Format::Table => printer.note(up::text(&report, &resume, printer.note_style())),
        format => printer.data(format, &report, |_, _| String::new())?,
    }
    match stopped {
        Some(StackError::Interrupted) | None => Ok(report.outcome.exit_code()),
        Some(error) => {
            let said = format!("the fleet file is changed; `{resume}` goes on from here");
            Err(anyhow::Error::new(error).context(said))
        }
    }
}

/// A fleet file as it is and as it should be.
#[derive(Debug)]
struct Edit {
    path: PathBuf,
    /// The same file with the change, beside it, while it is being judged.
    beside: PathBuf,
    before: String,
    after: String,
    /// The layer that builds the pool.
    layer: Layer,
}

impl Edit {
    /// Finds the file that speaks of the pool and changes its text. Later files rule, so they are
    /// asked first.
    fn of(command: &PoolCommand, spec: &FleetSpec) -> anyhow::Result<Self> {
        let (common, name) = (command.common(), command.name());
        let known = spec.pools.iter().find(|pool| pool.name == name);
        let layer = match (command, known) {
            (PoolCommand::Add(args), None) => args.class.layer(),
            (PoolCommand::Add(_), Some(_)) => {
                let message = format!("the fleet file has a pool `{name}` already");
                let hint = "control pool scale changes its size";
                return Err(Stated::new(ExitCode::Usage, message).with_hint(hint).into());
            }
            (PoolCommand::Scale(_) | PoolCommand::Rm(_), Some(pool)) => pool.class.layer(),
            (PoolCommand::Scale(_) | PoolCommand::Rm(_), None) => {
                let names: Vec<_> = spec.pools.iter().map(|pool| pool.name.as_str()).collect();
                let message = format!("the fleet file has no pool `{name}`");
                let hint = format!("it has {}", names.join(", "));
                return Err(Stated::new(ExitCode::Usage, message).with_hint(hint).into());
            }
        };
        for path in common.fleet.files.iter().rev() {
            let Some((before, after)) = changed(path, command, spec)? else { continue };
            let beside = path.with_extension("edit");
            write(&beside, &after)?;
            return Ok(Self { path: path.clone(), beside, before, after, layer });
        }
        let message = format!("could not change `{name}` in {}", common.fleet.named());
        let hint = "its pools are written in a way that is not known here: change the file by hand, \
                    then run control up";
        Err(Stated::new(ExitCode::PreflightBlocked, message).with_hint(hint).into())
    }

    fn files_with(&self, args: &FileArgs) -> Vec<PathBuf> {
        let other = |file: &PathBuf| if *file == self.path { &self.beside } else { file }.clone();
        args.files.iter().map(other).collect()
    }

    fn forget(&self) {
        // Nobody reads it any more; what stays is named like the file and says the same.
        let _ = std::fs::remove_file(&self.beside);
    }

    /// Puts the change in place, whole or not at all.
    fn write(&self) -> anyhow::Result<()> {
        write(&self.beside, &self.after)?;
        let moved = std::fs::rename(&self.beside, &self.path);
        moved.with_context(|| format!("could not write the fleet file `{}`", self.path.display()))
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let written = std::fs::File::create(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.with_context(|| format!("could not write `{}`", path.display()))
}

/// The file's text before and after; none when it does not speak of the pool in a way known here.
fn changed(
    path: &Path,
    command: &PoolCommand,
    spec: &FleetSpec,
) -> anyhow::Result<Option<(String, String)>> {
    if path == Path::new("-") {
        let message = "a fleet file from stdin cannot be changed";
        let hint = "name the file with -f";
        return Err(Stated::new(ExitCode::Usage, message).with_hint(hint).into());
    }
    let before = std::fs::read_to_string(path)
        .with_context(|| format!("could not read the fleet file `{}`", path.display()))?;
    let name = command.name();
    let after = match command {
        PoolCommand::Add(args) => edit::add(&before, &entry(args)),
        PoolCommand::Rm(_) => edit::remove(&before, name),
        PoolCommand::Scale(args) => {
            let pool = spec.pools.iter().find(|pool| pool.name == name);
            pool.and_then(|pool| edit::set_size(&before, name, resized(pool.size, args.nodes)))
        }
    };
    Ok(after.map(|after| (before, after)))
}

/// The pool as a line of the file.
fn entry(args: &PoolAdd) -> String {
    let PoolAdd { name, class, instance_type, nodes, max, .. } = args;
    let max = max.unwrap_or(*nodes).max(1);
    let class = class.label();
    format!(
        "{{name: {name}, class: {class}, instanceType: {instance_type}, \
         size: {{min: 0, desired: {nodes}, max: {max}}}}}"
    )
}

/// Refuses a change that would change more than the pool: the text was not understood.
fn only_that_changes(
    before: &FleetSpec,
    after: &FleetSpec,
    pool: &str,
    edit: &Edit,
) -> anyhow::Result<()> {
    let without = |spec: &FleetSpec| {
        let mut rest = spec.clone();
        rest.pools.retain(|one| one.name != pool);
        rest
    };
    if without(before) == without(after) && (before != after || edit.before == edit.after) {
        return Ok(());
    }
    let path = edit.path.display();
    let message = format!("`{path}` cannot be changed for `{pool}` alone");
    let hint = "another file or --set rules it, or it is written in a way that is not known here: \
                change it by hand, then run control up";
    Err(Stated::new(ExitCode::PreflightBlocked, message).with_hint(hint).into())
}
