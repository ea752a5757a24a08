//! The serial console's line: a verdict that needs no network and no IAM to be read.

use serde::{Deserialize, Serialize};

use crate::join_report::{JoinOutcome, JoinReport};
use crate::names::CONSOLE_PREFIX;
use crate::phase::Phase;
use crate::reason::ReasonName;

/// The longest JSON behind the prefix, in bytes: the console keeps 64 KiB in all.
pub const MAX_JSON: usize = 512;

/// One change of verdict, as `ROLLCALL {json}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsoleLine {
    /// Version of the line's schema, `1.0`.
    pub schema: String,
    /// When, RFC 3339.
    pub at: String,
    /// Instance id; empty while it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// How the join stands.
    pub outcome: JoinOutcome,
    /// The phase that the verdict is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Number of the proving.
    pub attempt: u32,
    /// Named causes, the cause first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<ReasonName>,
    /// The cause in one sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
}

impl ConsoleLine {
    /// The line for a report.
    #[must_use]
    pub fn of(report: &JoinReport) -> Self {
        Self {
            schema: report.schema.clone(),
            at: report.updated.clone(),
            instance: report.instance.id.clone(),
            outcome: report.outcome,
            phase: report.cause().and_then(|f| f.phase).or(report.current_phase()),
            attempt: report.attempt,
            reasons: report.reasons.iter().map(|f| f.reason.clone()).collect(),
            summary: report.cause().map(|f| f.summary.clone()).unwrap_or_default(),
        }
    }

    /// The line without its line feed; the summary is cut until the JSON fits.
    #[must_use]
    pub fn render(&self) -> String {
        let mut line = self.clone();
        loop {
            let json = serde_json::to_string(&line).unwrap_or_default();
            if json.len() <= MAX_JSON {
                return format!("{CONSOLE_PREFIX}{json}");
            }
            let excess = json.len() - MAX_JSON;
            if !line.summary.is_empty() {
                let keep = line.summary.len().saturating_sub(excess);
                line.summary.truncate(line.summary.floor_char_boundary(keep));
            } else if line.reasons.pop().is_none() {
                return format!("{CONSOLE_PREFIX}{json}");
            }
        }
    }

    /// The last line of ours in a console's output. Other programs write between and into lines,
    /// so the prefix may stand anywhere and what does not parse is passed over.
    #[must_use]
    pub fn last_in(output: &str) -> Option<Self> {
        output.lines().rev().find_map(|line| {
            let json = &line[line.find(CONSOLE_PREFIX)? + CONSOLE_PREFIX.len()..];
            serde_json::Deserializer::from_str(json).into_iter().next()?.ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    fn line() -> ConsoleLine {
        ConsoleLine {
            schema: "1.0".into(),
            at: "2026-11-20T20:00:03Z".into(),
            instance: "i-0123456789abcdef0".into(),
            outcome: JoinOutcome::Failed,
            phase: Some(Phase::Drivers),
            attempt: 1,
            reasons: vec![Reason::GpuCountShort.into()],
            summary: "7 of 8 GPUs".into(),
        }
    }

    #[test]
    fn matches_the_golden_file() {
        assert_eq!(line().render() + "\n", include_str!("../golden/console_line.txt"));
    }

    #[test]
    fn is_found_between_other_output() {
        let output = format!(
            "[    1.0] kernel: hello\n[  3.2] {} trailing\nROLLCALL {{\"torn\nlogin: ",
            line().render()
        );
        assert_eq!(ConsoleLine::last_in(&output), Some(line()));
        assert_eq!(ConsoleLine::last_in("nothing here"), None);
    }

    #[test]
    fn the_fallback_speaks_the_same_language() {
        let script = include_str!("../../systemd/libexec/fallback");
        let line = script.lines().find(|l| l.starts_with("line=")).unwrap();
        // As the shell reads it: the time put in, and the quotes taken off.
        let said = line.replace("'\"$now\"'", "2026-11-20T20:00:00Z").replace('\'', "");
        let line = ConsoleLine::last_in(&said).unwrap();
        assert_eq!(line.reasons, [ReasonName::from(Reason::AgentFault)]);
        assert_eq!(line.outcome, JoinOutcome::Failed);
    }

    #[test]
    fn never_longer_than_the_limit() {
        let mut long = line();
        long.summary = "é\"\n".repeat(400);
        long.reasons = vec![Reason::GpuCountShort.into(); 60];
        let text = long.render();
        assert!(text.len() <= CONSOLE_PREFIX.len() + MAX_JSON);
        assert_eq!(ConsoleLine::last_in(&text).unwrap().reasons[0].as_str(), "GpuCountShort");
    }
}
