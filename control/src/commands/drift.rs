//! `control drift`: what of a running fleet is not as its file asks. The same look as `plan`, told the
//! other way round.

use contract::ExitCode;

use crate::cli::DriftArgs;
use crate::commands::Context;
use crate::commands::plan::{self, Plan, line, mark};
use crate::output::Style;
use crate::stack::Action;
use crate::stack::driver::PlannedStep;

/// Runs the verb.
///
/// # Errors
/// The fleet file's problems, or what could not be read.
pub async fn run(args: &DriftArgs, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let tarball = args.agent_tarball.as_deref();
    let (_, plan) = plan::of_file(&args.fleet, tarball, context).await?;
    let again = args.fleet.again();
    context.printer.data(args.output.output, &plan, |plan, style| text(plan, &again, style))?;
    Ok(match args.detailed_exitcode && !plan.is_empty() {
        true => ExitCode::ChangesPending,
        false => ExitCode::Success,
    })
}

/// What has drifted, as a person reads it.
#[must_use]
pub fn text(plan: &Plan, again: &str, style: Style) -> String {
    let fleet = &plan.fleet;
    if plan.is_empty() {
        return format!("No drift: {fleet} is as asked.\n");
    }
    let mut out = String::new();
    for layer in plan.layers.iter().filter(|layer| !layer.steps.is_empty()) {
        for (index, step) in layer.steps.iter().enumerate() {
            let what = format!("{} {} {}", mark(step.action, style), step.resource, step.name);
            let row = format!("{what}  {}", style.dim(drifted(step)));
            out.push_str(&line((index == 0).then_some(layer.layer), &row, style));
        }
    }
    let count = plan.add + plan.change + plan.replace + plan.destroy;
    let things = if count == 1 { "1 thing is" } else { &format!("{count} things are") };
    out.push_str(&format!("\n{fleet} has drifted: {things} not as asked.\n"));
    out.push_str(&format!("To mend it: control up {again}\n"));
    out
}

fn drifted(step: &PlannedStep) -> String {
    match step.action {
        Action::Add => match step.why.strip_prefix("does not exist") {
            Some(beyond) => format!("is gone{beyond}"),
            None => step.why.clone(),
        },
        Action::Change | Action::Replace | Action::Destroy => step.why.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::Layer;
    use crate::stack::driver::PlannedLayer;

    #[test]
    fn what_is_gone_is_named() {
        let step = PlannedStep {
            action: Action::Add,
            resource: "route table",
            name: "prod-private".into(),
            why: "does not exist".into(),
        };
        let layers = vec![PlannedLayer { layer: Layer::Network, steps: vec![step] }];
        let said = text(&Plan::of("prod", layers), "-f fleet.yaml", Style::PLAIN);
        let expected = "\
\x20 network    + route table prod-private  is gone

prod has drifted: 1 thing is not as asked.
To mend it: control up -f fleet.yaml
";
        assert_eq!(said, expected);
        let none = Plan::of("prod", vec![]);
        assert_eq!(text(&none, "", Style::PLAIN), "No drift: prod is as asked.\n");
    }
}
