//! What `diagnose` and `status` show alike: whose it is, one cause first, what to do.

use contract::join_report::{Gpus, Instance, JoinOutcome};
use contract::{Finding, Phase};

/// The columns that a screen is made for.
const WIDTH: usize = 80;
/// Where a field's text begins.
const INDENT: usize = 12;

/// Which node a screen is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) instance: &'a Instance,
    pub(super) cluster: &'a str,
    pub(super) pool: &'a str,
}

/// Two lines: how it stands, whose it is.
pub(super) fn head(outcome: JoinOutcome, place: &Place<'_>, when: &str) -> String {
    let mark = match outcome {
        JoinOutcome::Ready => '✓',
        JoinOutcome::Joining => '…',
        JoinOutcome::Failed => '✗',
    };
    let Instance { id, instance_type, zone, name } = place.instance;
    let known: Vec<&str> = [id, instance_type, zone, name].into_iter().map(|s| word(s)).collect();
    let (cluster, pool) = (word(place.cluster), word(place.pool));
    format!("{mark} {}\n  cluster {cluster}, pool {pool}; {when}\n\n", known.join(" · "))
}

/// The cause with its evidence and its fix, then the others in a line each.
pub(super) fn causes(place: &Place<'_>, outcome: JoinOutcome, reasons: &[Finding]) -> String {
    let mut reasons = reasons.iter();
    let cause = match outcome {
        // Behind open gates stands no cause: what is to be reported comes below.
        JoinOutcome::Ready => None,
        JoinOutcome::Joining | JoinOutcome::Failed => reasons.next(),
    };
    let mut text = match (cause, outcome) {
        (Some(cause), _) => block(place, cause),
        (None, JoinOutcome::Ready) => field("verdict", "nothing is wrong: every gate is open"),
        (None, _) => field("verdict", "nothing is wrong so far: the join is under way"),
    };
    for other in reasons {
        text += &field("also", &format!("{}: {}", name(other), other.summary));
    }
    text
}

fn block(place: &Place<'_>, cause: &Finding) -> String {
    let mut text = field("cause", &name(cause));
    text += &continued(&cause.summary);
    let mut label = "evidence";
    for seen in &cause.evidence {
        text += &field(std::mem::take(&mut label), seen);
    }
    match cause.reason.known() {
        Some(reason) => {
            let fix = reason.hint_for(place.cluster, place.pool, &place.instance.id);
            // Whole, however long: a command that is copied must not be broken.
            text += &format!("  {:<10}{fix}\n", "fix");
            text += &field("more", &format!("rollcall-agent explain {reason}"));
        }
        None => text += &field("fix", "it is one of your own checks, or of a newer agent"),
    }
    text
}

/// `GpuLost (drivers)`; what does not close a gate says so.
fn name(finding: &Finding) -> String {
    let phase = finding.phase.map(Phase::label);
    let soft = (!finding.reason.is_hard()).then_some("soft");
    let said: Vec<&str> = phase.into_iter().chain(soft).collect();
    match said.is_empty() {
        true => finding.reason.to_string(),
        false => format!("{} ({})", finding.reason, said.join(", ")),
    }
}

/// One phase: `✓ identify       12 ms  what is waited for`.
pub(super) fn phase_line(
    mark: char,
    phase: Phase,
    ms: Option<u64>,
    detail: Option<&str>,
) -> String {
    let took = ms.map_or_else(String::new, |ms| format!("{ms} ms"));
    let head = format!("  {mark} {phase:<10} {took:>10}");
    match detail {
        Some(detail) => {
            let indent = head.chars().count() + 2;
            format!("{head}  {}\n", wrap(detail, indent).trim_start())
        }
        None => format!("{head}\n"),
    }
}

/// How many GPUs there are at each layer.
pub(super) fn gpus(gpus: &Gpus) -> String {
    let count = |count: Option<u32>| count.map_or("?".to_owned(), |count| count.to_string());
    format!(
        "{} expected, {} on PCI, {} device nodes, {} in NVML{}; driver {}{}",
        count(gpus.expected),
        count(gpus.pci),
        count(gpus.device_nodes),
        count(gpus.nvml),
        gpus.mig_devices.map(|parts| format!(" in {parts} MIG devices")).unwrap_or_default(),
        gpus.driver.as_deref().unwrap_or("?"),
        match gpus.gsp {
            Some(true) => ", GSP firmware on",
            Some(false) => ", GSP firmware off",
            None => "",
        },
    )
}

/// A labelled text, wrapped.
pub(super) fn field(label: &str, text: &str) -> String {
    format!("  {label:<10}{}\n", wrap(text, INDENT).trim_start())
}

fn continued(text: &str) -> String {
    format!("{}\n", wrap(text, INDENT))
}

/// Text in lines of at most [`WIDTH`] columns, each indented; a word that is longer stands alone.
fn wrap(text: &str, indent: usize) -> String {
    let margin = " ".repeat(indent);
    let mut lines: Vec<String> = Vec::new();
    let mut line = margin.clone();
    for word in text.split_whitespace() {
        let is_empty = line.len() == indent;
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::replace(&mut line, margin.clone()));
        } else if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines.join("\n")
}

/// A number of seconds as a person says it.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn word(text: &str) -> &str {
    if text.is_empty() { "?" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_wrapped_below_itself() {
        let text = field("fix", &"word ".repeat(20));
        assert!(text.lines().count() == 2 && text.lines().all(|line| line.len() <= WIDTH));
        assert!(text.lines().nth(1).unwrap().starts_with(&" ".repeat(INDENT)));
        let url = "x".repeat(100);
        assert_eq!(field("fix", &url), format!("  fix       {url}\n"));
    }

    #[test]
    fn spans() {
        for (seconds, said) in [(59, "59 s"), (240, "4 min"), (7200, "2 h"), (200_000, "2 days")] {
            assert_eq!(span(seconds), said);
        }
    }
}
