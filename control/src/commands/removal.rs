//! What `down` would remove, as a person reads it before saying yes: rows by layer, and the table of
//! what holds what.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::commands::plan::{mark, plural};
use crate::layers::blocks::Block;
use crate::output::Style;
use crate::output::text::shorten;
use crate::stack::Action;
use crate::stack::driver::PlannedStep;
use crate::stack::driver::down::Removal;

/// Width of a row's text behind the layer's column, on 80 columns.
const ROW_WIDTH: usize = 64;
/// Holders of one thing that are named; the rest are counted.
const NAMED: usize = 2;

/// A removal of a fleet, as it is printed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown<'a> {
    /// Name of the fleet.
    pub(super) fleet: &'a str,
    /// How many things would be removed.
    pub(super) count: usize,
    /// What.
    #[serde(flatten)]
    pub(super) removal: &'a Removal,
}

/// The removal as a person reads it.
pub(super) fn text(shown: &Shown<'_>, style: Style) -> String {
    let Shown { fleet, count, removal } = shown;
    let mut out = rows_of(removal, style);
    out.push_str(&held(&removal.blocks, style));
    for unknown in &removal.unknown {
        out.push_str(&format!("\n{} not looked at: {unknown}\n", style.yellow("!")));
    }
    out.push_str(&match count {
        0 => format!("\nNothing is owned by {fleet}.\n"),
        _ => format!("\nDown for {fleet}: {}\n", style.bold(format!("{count} to remove"))),
    });
    out
}

/// The rows, layer by layer.
pub(super) fn rows_of(removal: &Removal, style: Style) -> String {
    let mut out = String::new();
    let mut part = |name: &str, steps: &[PlannedStep]| {
        for (index, row) in rows(steps, style).iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            out.push_str(&format!("  {} {row}\n", style.bold(format!("{name:10}"))));
        }
    };
    part("workloads", &removal.workloads);
    for layer in &removal.layers {
        part(layer.layer.label(), &layer.steps);
    }
    let parameter = |name: &String| PlannedStep {
        action: Action::Destroy,
        resource: "parameter",
        name: name.clone(),
        why: String::new(),
    };
    part("reports", &removal.parameters.iter().map(parameter).collect::<Vec<_>>());
    out
}

/// One row for each kind of thing, in the order in which the first of them goes.
fn rows(steps: &[PlannedStep], style: Style) -> Vec<String> {
    let mut shown: Vec<(Action, &str)> = Vec::new();
    let mut rows = Vec::new();
    for step in steps {
        let kind = (step.action, step.resource);
        if shown.contains(&kind) {
            continue;
        }
        shown.push(kind);
        let alike = steps.iter().filter(|s| (s.action, s.resource) == kind);
        let names: Vec<&str> = alike.map(|step| step.name.as_str()).collect();
        let what = match names.len() {
            1 => step.resource.to_owned(),
            many => format!("{many} {}", plural(step.resource)),
        };
        let what = shorten(&format!("{what} {}", names.join(", ")), ROW_WIDTH);
        let why = match step.action {
            Action::Destroy => String::new(),
            Action::Add | Action::Change | Action::Replace => format!("  {}", style.dim(&step.why)),
        };
        rows.push(format!("{} {what}{why}", mark(step.action, style)));
    }
    rows
}

/// The table of what holds what.
pub(super) fn held(blocks: &[Block], style: Style) -> String {
    if blocks.is_empty() {
        return String::new();
    }
    let mut out = format!("\n{}\n", style.bold("What holds what"));
    for block in blocks {
        out.push_str(&format!("  {} {}\n", block.kind, style.cyan(&block.name)));
        let mut groups: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
        for holder in &block.by {
            groups.entry(holder.goes_with.as_deref()).or_default().push(&holder.what);
        }
        for (goes_with, holders) in groups {
            let more = holders.len().saturating_sub(NAMED);
            for what in holders.iter().take(NAMED) {
                let mark = if goes_with.is_some() { style.dim("·") } else { style.red("✗") };
                out.push_str(&format!("    {mark} {}\n", shorten(what, 74)));
            }
            let fate = match goes_with {
                Some(goes_with) => style.dim(format!("goes with {goes_with}")),
                None => style.red("not ours: whoever made it must remove it, or the fleet stays"),
            };
            let counted = if more > 0 { format!("and {more} more; ") } else { String::new() };
            out.push_str(&format!("      {counted}{fate}\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::blocks::Holder;
    use crate::stack::Layer;
    use crate::stack::driver::PlannedLayer;

    fn step(resource: &'static str, name: &str) -> PlannedStep {
        PlannedStep { action: Action::Destroy, resource, name: name.into(), why: "x".into() }
    }

    #[test]
    fn what_goes_is_grouped_and_what_stands_in_the_way_is_named() {
        let holder = |what: &str, goes_with: Option<&str>| Holder {
            what: what.into(),
            goes_with: goes_with.map(str::to_owned),
        };
        let nodes = (1..=3).map(|n| holder(&format!("instance i-{n}"), Some("node group gpu")));
        let foreign = holder("interface eni-9, RDSNetworkInterface", None);
        let removal = Removal {
            workloads: vec![step("load balancer", "loadbalancer/net/a/1")],
            layers: vec![PlannedLayer {
                layer: Layer::Network,
                steps: vec![step("subnet", "a"), step("vpc", "vpc-1"), step("subnet", "b")],
            }],
            parameters: vec!["/rollcall/prod/gpu/i-1".into()],
            blocks: vec![Block {
                kind: "subnet",
                name: "prod-private-a".into(),
                by: nodes.chain([foreign]).collect(),
            }],
            unknown: vec![],
        };
        let shown = Shown { fleet: "prod", count: removal.count(), removal: &removal };
        let expected = "\
\x20 workloads  - load balancer loadbalancer/net/a/1
\x20 network    - 2 subnets a, b
\x20            - vpc vpc-1
\x20 reports    - parameter /rollcall/prod/gpu/i-1

What holds what
\x20 subnet prod-private-a
\x20   ✗ interface eni-9, RDSNetworkInterface
\x20     not ours: whoever made it must remove it, or the fleet stays
\x20   · instance i-1
\x20   · instance i-2
\x20     and 1 more; goes with node group gpu

Down for prod: 5 to remove
";
        assert_eq!(text(&shown, Style::PLAIN), expected);
    }
}
