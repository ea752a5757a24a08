//! `control explain`: what a reason means and what to do about it, from the contract's table.

use std::collections::BTreeMap;

use contract::reason::Weight;
use contract::{ExitCode, Reason};
use serde::Serialize;

use crate::cli::ExplainArgs;
use crate::commands::Context;
use crate::failure::Stated;
use crate::output::Style;
use crate::output::text::wrap;

/// Runs the verb.
///
/// # Errors
/// When no reason has that name.
pub fn run(args: &ExplainArgs, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    match &args.reason {
        Some(name) => {
            let reason = find(name)?;
            context.printer.data(args.output.output, &Row::of(reason), one)?;
        }
        None => {
            let rows: Vec<Row> = Reason::ALL.iter().copied().map(Row::of).collect();
            context.printer.data(args.output.output, &rows, all)?;
        }
    }
    Ok(ExitCode::Success)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    reason: &'static str,
    seen_by: String,
    hard: bool,
    meaning: &'static str,
    hint: String,
    node_condition_reason: &'static str,
    explains: Vec<&'static str>,
    explained_by: Vec<&'static str>,
}

impl Row {
    fn of(reason: Reason) -> Self {
        let entry = reason.entry();
        Self {
            reason: entry.name,
            seen_by: entry.owner.to_string(),
            hard: entry.weight != Weight::Soft,
            meaning: entry.meaning,
            hint: reason.hint_for("<cluster>", "<pool>", "<instance>"),
            node_condition_reason: reason.node_reason(),
            explains: entry.explains.iter().map(|explained| explained.name()).collect(),
            explained_by: Reason::ALL
                .iter()
                .filter(|cause| cause.entry().explains.contains(&reason))
                .map(|cause| cause.name())
                .collect(),
        }
    }
}

fn find(name: &str) -> Result<Reason, Stated> {
    name.parse().map_err(|error: contract::reason::UnknownReason| {
        let nearest = nearest(name);
        let hint = match nearest {
            Some(reason) => format!("did you mean `{reason}`?"),
            None => "control explain lists all of them".to_owned(),
        };
        Stated::new(ExitCode::Usage, error.to_string()).with_hint(hint)
    })
}

/// The reason whose name is written most alike, if any is.
fn nearest(name: &str) -> Option<Reason> {
    let name = name.to_ascii_lowercase();
    let alike = |reason: &Reason| strsim::jaro_winkler(&name, &reason.name().to_ascii_lowercase());
    Reason::ALL
        .iter()
        .copied()
        .max_by(|a, b| alike(a).total_cmp(&alike(b)))
        .filter(|reason| alike(reason) > 0.8)
}

fn one(row: &Row, style: Style) -> String {
    let effect = if row.hard { "closes the gate" } else { "is reported, the node is admitted" };
    let mut lines = vec![
        style.bold(row.reason),
        wrap(row.meaning, 2, 80),
        String::new(),
        format!("  {}  {}; {effect}", style.cyan("seen by       "), row.seen_by),
        format!("  {}  {}", style.cyan("node condition"), row.node_condition_reason),
    ];
    for (name, reasons) in
        [("explains      ", &row.explains), ("explained by  ", &row.explained_by)]
    {
        if !reasons.is_empty() {
            let list = wrap(&reasons.join(", "), 18, 80);
            lines.push(format!("  {}  {}", style.cyan(name), list.trim_start()));
        }
    }
    lines.push(format!("  {}", style.green("what to do")));
    lines.push(wrap(&row.hint, 4, 80));
    lines.join("\n")
}

fn all(rows: &Vec<Row>, style: Style) -> String {
    let mut by_phase: Vec<(&str, Vec<&Row>)> = Vec::new();
    let mut index = BTreeMap::new();
    for row in rows {
        let at = *index.entry(row.seen_by.as_str()).or_insert_with(|| {
            by_phase.push((&row.seen_by, Vec::new()));
            by_phase.len() - 1
        });
        by_phase[at].1.push(row);
    }
    let mut lines = Vec::new();
    for (phase, rows) in by_phase {
        lines.push(style.bold(phase));
        for row in rows {
            lines.push(format!("  {}", style.cyan(row.reason)));
            lines.push(wrap(row.meaning, 4, 80));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reason_reads_so() {
        assert_eq!(
            one(&Row::of(Reason::ApiServerUnreachable), Style::PLAIN),
            "\
ApiServerUnreachable
  No TCP connection to the cluster's API server comes about.

  seen by         preflight; closes the gate
  node condition  ApiServerUnreachable
  explains        NodeNotRegistered
  explained by    ClusterFactsStale, ProxyMisconfigured, ApiServerDnsFailed
  what to do
    open port 443 from the node's security group to the cluster's: control
    diagnose <instance>"
        );
    }

    #[test]
    fn every_reason_is_explained_within_80_columns() {
        let rows: Vec<Row> = Reason::ALL.iter().copied().map(Row::of).collect();
        let text = all(&rows, Style::PLAIN);
        for row in &rows {
            assert!(text.contains(row.reason));
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn a_slip_of_the_pen_is_answered_with_the_nearest_name() {
        assert_eq!(find("driverlibrarymismatch").unwrap(), Reason::DriverLibraryMismatch);
        let error = find("DriverLibMismatch").unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("did you mean `DriverLibraryMismatch`?"));
        assert_eq!(error.exit_code, ExitCode::Usage);
        let error = find("xyz").unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("control explain lists all of them"));
    }
}
