//! `control plan`: what `up` would do now, and why.

use std::path::Path;

use contract::ExitCode;
use serde::Serialize;

use crate::cli::{FileArgs, Format, PlanArgs};
use crate::commands::{Context, saved_plan, session};
use crate::output::Style;
use crate::output::events::{self, Event};
use crate::output::progress::Progress;
use crate::output::text::shorten;
use crate::stack::driver::{self, PlannedLayer, PlannedStep};
use crate::stack::{Action, Layer, Scope, estimate};

/// Width of a layer's column.
const LAYER_WIDTH: usize = 10;
/// Width of a row's text behind the layer's column, on 80 columns.
const ROW_WIDTH: usize = 65;
/// What of it the names get at least, however long the reason is.
const NAMES_MIN: usize = 24;

/// A plan as it is printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Name of the fleet.
    pub fleet: String,
    /// Layer by layer.
    pub layers: Vec<PlannedLayer>,
    /// Resources that would be made.
    pub add: usize,
    /// Resources that would be changed in place.
    pub change: usize,
    /// Resources that would be replaced.
    pub replace: usize,
    /// Resources that would be removed.
    pub destroy: usize,
    /// Seconds that it may take, roughly; none when there is nothing to do.
    pub estimated_seconds: Option<u64>,
}

impl Plan {
    /// Counts the steps.
    #[must_use]
    pub fn of(fleet: &str, layers: Vec<PlannedLayer>) -> Self {
        let count = |action: Action| {
            layers.iter().flat_map(|l| &l.steps).filter(|step| step.action == action).count()
        };
        Self {
            fleet: fleet.to_owned(),
            add: count(Action::Add),
            change: count(Action::Change),
            replace: count(Action::Replace),
            destroy: count(Action::Destroy),
            estimated_seconds: estimate::estimate(&layers),
            layers,
        }
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.add + self.change + self.replace + self.destroy == 0
    }
}

/// Runs the verb.
///
/// # Errors
/// The fleet file's problems, or what could not be read.
pub async fn run(args: &PlanArgs, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let (scope, plan) = of_file(&args.fleet, args.agent_tarball.as_deref(), context).await?;
    if let Some(path) = &args.out {
        saved_plan::write(path, &scope, &plan)?;
        let path = path.display();
        let again = args.fleet.again();
        context.printer.note(format!("kept: control up {again} --plan {path}"));
    }
    if args.output.output == Format::Jsonl {
        tell(&plan);
    }
    let shown = if args.explain { explained } else { text };
    context.printer.data(args.output.output, &plan, shown)?;
    Ok(match args.detailed_exitcode && !plan.is_empty() {
        true => ExitCode::ChangesPending,
        false => ExitCode::Success,
    })
}

/// A line of JSON for each change.
fn tell(plan: &Plan) {
    for layer in &plan.layers {
        for PlannedStep { action, resource, name, why } in &layer.steps {
            let (layer, action) = (layer.layer, *action);
            events::emit(&Event::Change { layer, action, resource, name, why });
        }
    }
}

/// What `up` would do now with a fleet file.
///
/// # Errors
/// The fleet file's problems, or what could not be read.
pub async fn of_file(
    file: &FileArgs,
    tarball: Option<&Path>,
    context: &Context<'_>,
) -> anyhow::Result<(Scope, Plan)> {
    let spec = session::spec(file)?;
    let clients = session::clients(&spec, context).await?;
    let world = session::world(clients, &spec.name, Progress::silent()).await?;
    let inputs = session::inputs(&world, spec, tarball).await?;
    let layers = driver::plan(&world, inputs).await?;
    let plan = Plan::of(&world.scope.fleet, layers);
    Ok((world.scope, plan))
}

/// The plan, a row and a reason for each step.
#[must_use]
pub fn explained(plan: &Plan, style: Style) -> String {
    let mut out = String::new();
    for layer in plan.layers.iter().filter(|layer| !layer.steps.is_empty()) {
        for (index, step) in layer.steps.iter().enumerate() {
            let what = format!("{} {} {}", mark(step.action, style), step.resource, step.name);
            let name = (index == 0).then_some(layer.layer);
            out.push_str(&line(name, &format!("{what}  {}", style.dim(&step.why)), style));
        }
    }
    out.push_str(&totals(plan, style));
    out
}

/// The plan as a person reads it.
#[must_use]
pub fn text(plan: &Plan, style: Style) -> String {
    let mut out = String::new();
    for layer in &plan.layers {
        let mut rows = rows(&layer.steps, style).into_iter();
        let first = rows.next().unwrap_or_else(|| style.dim("as asked"));
        out.push_str(&line(Some(layer.layer), &first, style));
        for row in rows {
            out.push_str(&line(None, &row, style));
        }
    }
    out.push_str(&totals(plan, style));
    out
}

fn totals(plan: &Plan, style: Style) -> String {
    let Plan { add, change, replace, destroy, .. } = plan;
    let totals = format!("{add} add, {change} change, {replace} replace, {destroy} destroy");
    match plan.is_empty() {
        true => format!("\nNothing to do: {} is as asked.\n", plan.fleet),
        false => {
            let about = plan.estimated_seconds.map(estimate::words).unwrap_or_default();
            let about = style.dim(format!("  {about}"));
            format!("\nPlan for {}: {}{about}\n", plan.fleet, style.bold(totals))
        }
    }
}

pub(super) fn line(layer: Option<Layer>, row: &str, style: Style) -> String {
    let name = layer.map_or_else(String::new, |layer| layer.label().to_owned());
    format!("  {} {row}\n", style.bold(format!("{name:LAYER_WIDTH$}")))
}

/// Additions of one kind share a row, where the first of them stands; everything else stands alone
/// with its reason.
fn rows(steps: &[PlannedStep], style: Style) -> Vec<String> {
    let mut rows = Vec::new();
    let mut shown = Vec::new();
    for step in steps {
        let (action, resource) = (step.action, step.resource);
        if action != Action::Add {
            let what = format!("{resource} {}", step.name);
            rows.push(format!("{} {what}  {}", mark(action, style), style.dim(&step.why)));
        } else if resource == "node group" {
            rows.push(addition(resource, &[step], style));
        } else if !shown.contains(&resource) {
            shown.push(resource);
            let alike = steps.iter().filter(|s| s.action == action && s.resource == resource);
            rows.push(addition(resource, &alike.collect::<Vec<_>>(), style));
        }
    }
    rows
}

fn addition(resource: &str, steps: &[&PlannedStep], style: Style) -> String {
    let names: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
    let what = match steps.len() {
        1 => resource.to_owned(),
        many => format!("{many} {}", plural(resource)),
    };
    // That it does not exist is why everything is added; only what is said beyond is worth a place.
    let beyond = |step: &&PlannedStep| {
        let why = step.why.strip_prefix("does not exist").unwrap_or(&step.why);
        why.trim_start_matches(';').trim().to_owned()
    };
    let beyond = steps.first().map(beyond).unwrap_or_default();
    let said = if beyond.is_empty() { 0 } else { beyond.chars().count() + 2 };
    let width = ROW_WIDTH.saturating_sub(said).max(NAMES_MIN);
    let mut text = shorten(&format!("{what} {}", names.join(", ")), width);
    if !beyond.is_empty() {
        text = format!("{text}  {}", style.dim(beyond));
    }
    format!("{} {text}", mark(Action::Add, style))
}

pub(super) fn plural(word: &str) -> String {
    match word.strip_suffix('s') {
        Some(stem) if word.ends_with("ss") => format!("{stem}ses"),
        Some(_) => word.to_owned(),
        None => format!("{word}s"),
    }
}

pub(super) fn mark(action: Action, style: Style) -> String {
    match action {
        Action::Add => style.green(action.mark()),
        Action::Change | Action::Replace => style.yellow(action.mark()),
        Action::Destroy => style.red(action.mark()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(action: Action, resource: &'static str, name: &str, why: &str) -> PlannedStep {
        PlannedStep { action, resource, name: name.into(), why: why.into() }
    }

    #[test]
    fn additions_of_a_kind_share_a_row_and_changes_say_why() {
        let plan = Plan::of(
            "prod",
            vec![
                PlannedLayer {
                    layer: Layer::Network,
                    steps: vec![
                        step(Action::Add, "subnet", "a", "does not exist"),
                        step(Action::Add, "route table", "r", "does not exist"),
                        step(Action::Add, "subnet", "b", "does not exist"),
                        step(Action::Change, "default route", "prod-private", "leads nowhere"),
                    ],
                },
                PlannedLayer { layer: Layer::Identity, steps: vec![] },
                PlannedLayer {
                    layer: Layer::Gpu,
                    steps: vec![step(
                        Action::Add,
                        "node group",
                        "h100",
                        "does not exist; 4 × p5.48xlarge (known after: cluster)",
                    )],
                },
            ],
        );
        let expected = "\
\x20 network    + 2 subnets a, b
\x20            + route table r
\x20            ~ default route prod-private  leads nowhere
\x20 identity   as asked
\x20 gpu        + node group h100  4 × p5.48xlarge (known after: cluster)

Plan for prod: 4 add, 1 change, 0 replace, 0 destroy  about 6 min
";
        assert_eq!(text(&plan, Style::PLAIN), expected);
    }

    #[test]
    fn explained_every_step_has_its_row_and_reason() {
        let steps = vec![
            step(Action::Add, "subnet", "a", "does not exist"),
            step(Action::Destroy, "subnet", "b", "is there once too often"),
        ];
        let plan = Plan::of("prod", vec![PlannedLayer { layer: Layer::Network, steps }]);
        let expected = "\
\x20 network    + subnet a  does not exist
\x20            - subnet b  is there once too often

Plan for prod: 1 add, 0 change, 0 replace, 1 destroy  under a minute
";
        assert_eq!(explained(&plan, Style::PLAIN), expected);
    }

    #[test]
    fn nothing_to_do_is_said() {
        let plan = Plan::of("prod", vec![PlannedLayer { layer: Layer::Gpu, steps: vec![] }]);
        assert!(plan.is_empty());
        assert!(text(&plan, Style::PLAIN).contains("Nothing to do"));
    }
}
