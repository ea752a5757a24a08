//! `control diagnose`: one cause, how sure it is, the evidence, and the command that fixes it. Without
//! a node, the fleet's histogram of reasons with one sample of each.

use std::fmt::Write as _;

use contract::join_report::PhaseState;
use contract::{ExitCode, ReasonName};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::DiagnoseArgs;
use crate::commands::status::reach;
use crate::commands::{Context, fleet};
use crate::diagnose::gather::gather;
use crate::diagnose::rules::{self, Candidate, Diagnosis, Mark, Observation};
use crate::diagnose::survey::survey;
use crate::diagnose::{NodeEvidence, NodeState, NodeVerdict, Stage, histogram, judge, verdict_of};
use crate::failure::Stated;
use crate::output::Style;
use crate::output::text::wrap;

/// The columns that a screen is made for.
const WIDTH: usize = 80;

/// Runs the verb.
///
/// # Errors
/// When AWS does not answer, or no node has that name.
pub async fn run(args: &DiagnoseArgs, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let found = fleet::find(&args.fleet, context.global).await?;
    let name = found.required()?;
    let (_facts, cluster) = reach(&found.clients, name).await?;
    let survey = survey(&found.clients, cluster.as_ref(), name).await?;
    let now = Timestamp::now();
    let judged = judge(&survey.nodes, now);
    let Some(wanted) = &args.node else {
        let fleet = FleetView::of(name, judged.iter().map(|(verdict, _)| verdict));
        context.printer.data(args.output.output, &fleet, fleet_screen)?;
        return Ok(if fleet.failed > 0 { ExitCode::NodesFailed } else { ExitCode::Success });
    };
    let (verdict, evidence) = pick(&judged, &survey.nodes, wanted, now)?;
    let evidence = gather(&found.clients, cluster.as_ref(), name, evidence.clone()).await;
    let diagnosis = rules::diagnose(&evidence, now);
    let mut view = NodeView::of(name, &verdict, &diagnosis);
    if let (Some(fix), Some(access)) = (&mut view.fix, evidence.access.get()) {
        *fix = fix.replace("<node role>", &access.role);
    }
    context.printer.data(args.output.output, &view, node_screen)?;
    let failed = diagnosis.conclusion.state == NodeState::Failed;
    Ok(if failed { ExitCode::NodesFailed } else { ExitCode::Success })
}

/// The node that somebody means; a gone instance is found by its id as long as EC2 remembers it.
fn pick<'a>(
    judged: &'a [(NodeVerdict, &'a NodeEvidence)],
    all: &'a [NodeEvidence],
    wanted: &str,
    now: Timestamp,
) -> Result<(NodeVerdict, &'a NodeEvidence), Stated> {
    if let Some((verdict, evidence)) = judged.iter().find(|(v, _)| v.is_called(wanted)) {
        return Ok((verdict.clone(), evidence));
    }
    if let Some(evidence) = all.iter().find(|one| one.instance.id == wanted) {
        return Ok((verdict_of(evidence, 0, now), evidence));
    }
    let hint = match judged {
        [] => "the fleet has no instance at all; control status shows its layers".to_owned(),
        _ => {
            let places: Vec<String> = judged.iter().take(6).map(|(v, _)| v.place()).collect();
            let more = if judged.len() > places.len() { ", …" } else { "" };
            format!("control status lists them: {}{more}", places.join(", "))
        }
    };
    Err(Stated::new(ExitCode::Usage, format!("the fleet has no node `{wanted}`")).with_hint(hint))
}

#[derive(Debug, Serialize)]
struct NodeView {
    node: String,
    place: String,
    name: Option<String>,
    #[serde(rename = "type")]
    instance_type: String,
    zone: String,
    state: NodeState,
    stage: &'static str,
    cause: Option<Candidate>,
    others: Vec<Candidate>,
    evidence: Vec<Observation>,
    fix: Option<String>,
    timeline: Vec<Mark>,
}

impl NodeView {
    fn of(cluster: &str, verdict: &NodeVerdict, diagnosis: &Diagnosis) -> Self {
        let mut candidates = diagnosis.candidates.iter().cloned();
        let cause = candidates.next();
        Self {
            node: verdict.instance.clone(),
            // A gone instance has left its place to its replacement.
            place: match verdict.stage {
                Stage::Gone => verdict.pool.clone(),
                _ => verdict.place(),
            },
            name: verdict.node_name.clone(),
            instance_type: verdict.instance_type.clone(),
            zone: verdict.zone.clone(),
            state: diagnosis.conclusion.state,
            stage: diagnosis.conclusion.stage.label(),
            fix: cause.as_ref().map(|c| fix(&c.reason, cluster, verdict)),
            cause,
            others: candidates.collect(),
            evidence: diagnosis.evidence.clone(),
            timeline: diagnosis.timeline.clone(),
        }
    }
}

fn fix(reason: &ReasonName, cluster: &str, verdict: &NodeVerdict) -> String {
    match reason.known() {
        Some(reason) => reason.hint_for(cluster, &verdict.pool, &verdict.instance),
        None => format!("`{reason}` is not in this version's table: use a newer control"),
    }
}

fn node_screen(view: &NodeView, style: Style) -> String {
    let mark = match view.state {
        NodeState::Ready => style.green("✓"),
        NodeState::Joining => style.yellow("…"),
        NodeState::Failed => style.red("✗"),
    };
    let mut text = format!(
        "{mark} {} {} · {} · {}\n  {}\n",
        style.bold(&view.place),
        view.node,
        view.instance_type,
        view.zone,
        view.stage
    );
    if !view.timeline.is_empty() {
        _ = writeln!(text, "  {}", timeline(&view.timeline, style));
    }
    text.push('\n');
    match &view.cause {
        Some(cause) => {
            let sure = cause.confidence.label();
            let head = format!("{} ({sure})", style.bold(&cause.reason));
            _ = writeln!(text, "  {}  {head}", style.red("cause   "));
            _ = writeln!(text, "{}", wrap(&cause.summary, 12, WIDTH));
        }
        None if view.state == NodeState::Ready => {
            _ = writeln!(text, "  {}  nothing is wrong with it", style.green("verdict "));
        }
        None => {
            _ = writeln!(text, "  {}  none yet: it is under way", style.yellow("verdict "));
        }
    }
    for other in &view.others {
        let line = format!("{} ({}): {}", other.reason, other.confidence.label(), other.summary);
        _ = writeln!(text, "  {}  {}", style.dim("also    "), wrap(&line, 12, WIDTH).trim_start());
    }
    let mut label = "evidence";
    let mut source = "";
    for seen in &view.evidence {
        let shown = if seen.source == source { "" } else { seen.source };
        source = seen.source;
        let lines = wrap(&seen.text, 24, WIDTH);
        let (label_shown, lines) = (std::mem::take(&mut label), lines.trim_start());
        _ = writeln!(text, "  {}  {shown:<10}  {lines}", style.cyan(format!("{label_shown:<8}")));
    }
    if let Some(fix) = &view.fix {
        let lines = wrap(fix, 12, WIDTH);
        _ = writeln!(text, "  {}  {}", style.green("fix     "), lines.trim_start());
    }
    text.trim_end().to_owned()
}

/// `identify ✓ 0.0s  configure ✓ 0.1s …`, broken into lines.
fn timeline(marks: &[Mark], style: Style) -> String {
    let mut lines = vec![String::new()];
    let mut length = 0;
    for mark in marks {
        let time = mark.ms.map(|ms| format!(" {}.{}s", ms / 1000, ms % 1000 / 100));
        let plain = format!("{} ✓{}", mark.phase, time.as_deref().unwrap_or_default());
        if length > 0 && length + 2 + plain.chars().count() > WIDTH - 2 {
            lines.push(String::new());
            length = 0;
        }
        let sign = match mark.state {
            Some(PhaseState::Passed) => style.green("✓"),
            Some(PhaseState::Degraded) => style.yellow("!"),
            Some(PhaseState::Running | PhaseState::Waiting) => style.yellow("…"),
            Some(PhaseState::Failed) => style.red("✗"),
            Some(PhaseState::Skipped) => style.dim("-"),
            None => style.dim("–"),
        };
        let line = lines.last_mut().expect("there is always a last line");
        if length > 0 {
            line.push_str("  ");
            length += 2;
        }
        _ = write!(line, "{} {sign}{}", mark.phase, style.dim(time.unwrap_or_default()));
        length += plain.chars().count();
    }
    lines.join("\n  ")
}

#[derive(Debug, Serialize)]
struct FleetView {
    fleet: String,
    nodes: usize,
    ready: usize,
    joining: usize,
    failed: usize,
    reasons: Vec<ReasonView>,
}

#[derive(Debug, Serialize)]
struct ReasonView {
    reason: String,
    count: usize,
    sample: String,
    instance: String,
    summary: String,
    fix: String,
}

impl FleetView {
    fn of<'a>(cluster: &str, verdicts: impl Iterator<Item = &'a NodeVerdict>) -> Self {
        let verdicts: Vec<&NodeVerdict> = verdicts.collect();
        let count = |state| verdicts.iter().filter(|v| v.state == state).count();
        let reasons = histogram(verdicts.iter().copied()).into_iter().filter_map(|(reason, n)| {
            let sample = verdicts.iter().find(|verdict| {
                verdict.reasons.first().is_some_and(|first| first.reason.as_str() == reason)
            })?;
            let first = sample.reasons.first()?;
            Some(ReasonView {
                fix: fix(&first.reason, cluster, sample),
                reason,
                count: n,
                sample: sample.place(),
                instance: sample.instance.clone(),
                summary: first.summary.clone(),
            })
        });
        Self {
            fleet: cluster.to_owned(),
            reasons: reasons.collect(),
            nodes: verdicts.len(),
            ready: count(NodeState::Ready),
            joining: count(NodeState::Joining),
            failed: count(NodeState::Failed),
        }
    }
}

fn fleet_screen(view: &FleetView, style: Style) -> String {
    let mut text = format!(
        "{} · {} nodes: {} ready, {} joining, {} failed\n",
        style.bold(&view.fleet),
        view.nodes,
        view.ready,
        view.joining,
        view.failed
    );
    for reason in &view.reasons {
        let bar = "█".repeat((reason.count * 20).div_ceil(view.failed.max(1)));
        let name = style.bold(&reason.reason);
        _ = writeln!(
            text,
            "\n{} {name}  {}",
            style.red(format!("{:>4}", reason.count)),
            style.red(bar)
        );
        let sample = format!("such as {} {}: {}", reason.sample, reason.instance, reason.summary);
        _ = writeln!(text, "{}", wrap(&sample, 5, WIDTH));
        let fix = wrap(&reason.fix, 10, WIDTH);
        _ = writeln!(text, "     {} {}", style.green("fix:"), fix.trim_start());
    }
    if view.failed == 0 {
        text.push_str("no node has failed");
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use contract::{Phase, Reason};

    use super::*;
    use crate::diagnose::samples::{around, at, failed, proven, silent};

    fn view(node: NodeEvidence, after: i64) -> NodeView {
        let verdict = verdict_of(&node, 1, at(after));
        NodeView::of("prod", &verdict, &rules::diagnose(&around(node), at(after)))
    }

    #[test]
    fn a_broken_node_reads_so() {
        assert_eq!(
            node_screen(
                &view(failed(Reason::DriverLibraryMismatch, Phase::Drivers), 192),
                Style::PLAIN
            ),
            "\
✗ h100/1 i-0123456789abcdef0 · p5.48xlarge · us-east-1a
  booted, not bootstrapped
  identify ✓ 0.0s  configure –  preflight –  drivers ✗ 0.4s  bootstrap –  cni –
  register –  ready –

  cause     DriverLibraryMismatch (certain)
            seen
  evidence  ssm         failed in drivers, attempt 2, written
                        2026-11-20T20:00:30Z
            console     empty
            ec2         running, launched 3m12s ago; status checks: host ok,
                        instance ok
            node group  `h100` is CREATING; no health issue
            access      role `prod-gpu-node` has an entry of type EC2_LINUX
            kubernetes  no Node object: kubelet is held until the gates before
                        it pass
  fix       "
                .to_owned()
                + wrap(
                    &Reason::DriverLibraryMismatch.hint_for("prod", "h100", "i-0123456789abcdef0"),
                    12,
                    80
                )
                .trim_start()
        );
    }

    #[test]
    fn a_healthy_node_reads_so() {
        let text = node_screen(&view(proven(), 90), Style::PLAIN);
        assert!(text.starts_with("✓ h100/1 i-0123456789abcdef0 · p5.48xlarge"), "{text}");
        assert!(text.contains("nothing is wrong with it"), "{text}");
        assert!(text.contains("8 of 8 GPUs on offer") && !text.contains("fix"), "{text}");
    }

    #[test]
    fn the_document_has_what_scripts_read() {
        let value =
            serde_json::to_value(view(failed(Reason::GpuAbsent, Phase::Drivers), 60)).unwrap();
        assert_eq!(value["cause"]["reason"], "GpuAbsent");
        assert_eq!(value["cause"]["confidence"], "certain");
        assert_eq!(
            value["timeline"][3],
            serde_json::json!({"phase": "drivers", "state": "failed", "ms": 410})
        );
        assert_eq!(value["evidence"][0]["source"], "ssm");
        assert!(value["fix"].as_str().unwrap().contains("i-0123456789abcdef0"));
    }

    #[test]
    fn the_fleet_is_a_histogram_with_samples() {
        let broken = failed(Reason::GpuAbsent, Phase::Drivers);
        let other = failed(Reason::DriverHang, Phase::Drivers);
        let verdicts = [
            verdict_of(&proven(), 0, at(60)),
            verdict_of(&broken, 1, at(60)),
            verdict_of(&other, 2, at(60)),
            verdict_of(&broken, 3, at(60)),
        ];
        let view = FleetView::of("prod", verdicts.iter());
        let text = fleet_screen(&view, Style::PLAIN);
        assert!(text.starts_with("prod · 4 nodes: 1 ready, 0 joining, 3 failed\n"), "{text}");
        let (first, second) = (text.find("2 GpuAbsent"), text.find("1 DriverHang"));
        assert!(first < second && first.is_some(), "{text}");
        assert!(text.contains("such as h100/1 i-0123456789abcdef0: seen"), "{text}");
    }

    #[test]
    fn a_node_is_found_by_each_of_its_names() {
        let mut gone = silent();
        gone.instance.id = "i-gone".into();
        gone.instance.state = "terminated".into();
        let all = [proven(), gone];
        let judged = judge(&all, at(90));
        for name in ["h100/0", "i-0123456789abcdef0", "ip-10-0-1-7.ec2.internal", "i-gone"] {
            assert!(pick(&judged, &all, name, at(90)).is_ok(), "{name}");
        }
        let error = pick(&judged, &all, "h100/9", at(90)).unwrap_err();
        assert_eq!(error.to_string(), "the fleet has no node `h100/9`");
        assert!(error.hint.unwrap().contains("h100/0"));
    }
}
