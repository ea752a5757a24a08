//! What was heard of a node against what its case expects. Pure.

use std::collections::BTreeSet;

use contract::join_report::JoinOutcome;
use contract::reason::ReasonName;
use contract::{ConsoleLine, JoinReport};
use serde::Serialize;

use super::case::{Case, Channel, Named};

/// What every channel says of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    /// Our lines on the console, oldest first.
    pub console: Vec<ConsoleLine>,
    /// The report on the node.
    pub report: Option<JoinReport>,
    /// The causes that the journal names, oldest first.
    pub journal: Vec<String>,
    /// The Description of the report parameter.
    pub parameter: Option<String>,
    /// The instance's tag.
    pub tag: Option<String>,
    /// Reason and message of the Node's conditions about its GPUs.
    pub condition: Option<String>,
}

/// How a case stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Everything is as expected.
    Passed,
    /// It may still come.
    NotYet(String),
    /// It cannot come any more.
    Wrong(String),
}

/// A case's line, as `lab corpus run -o jsonl` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// The case.
    pub case: String,
    /// The cause that was to be named; none: nothing hard was.
    pub reason: Option<String>,
    /// What was named, the cause first.
    pub named: Vec<ReasonName>,
    /// Whether all was as expected.
    pub passed: bool,
    /// From the launch to the verdict on every channel.
    pub seconds: f64,
    /// Where the cause was heard.
    pub channels: BTreeSet<Channel>,
    /// What was not as expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Heard {
    /// What the node names now, the cause first: the latest of console and file.
    #[must_use]
    pub fn named(&self) -> Vec<ReasonName> {
        match (&self.report, self.console.last()) {
            (Some(report), _) => report.reasons.iter().map(|f| f.reason.clone()).collect(),
            (None, Some(line)) => line.reasons.clone(),
            (None, None) => Vec::new(),
        }
    }

    /// Where this reason is heard as the cause.
    #[must_use]
    pub fn channels(&self, cause: Named) -> BTreeSet<Channel> {
        let Named(reason) = cause;
        let name = reason.name();
        let console = self.console.iter().any(|line| line.reasons.contains(&reason.into()));
        let file = self.named().contains(&reason.into()) && self.report.is_some();
        let word = format!("reason={name} ");
        let ends = format!(" {name}");
        [
            (Channel::Console, console),
            (Channel::File, file),
            (Channel::Journal, self.journal.iter().any(|heard| heard == name)),
            (Channel::Ssm, self.parameter.as_ref().is_some_and(|text| text.contains(&word))),
            (Channel::Tag, self.tag.as_ref().is_some_and(|text| text.ends_with(&ends))),
            (Channel::Condition, self.condition.as_ref().is_some_and(|text| text.contains(name))),
        ]
        .into_iter()
        .filter_map(|(channel, is_heard)| is_heard.then_some(channel))
        .collect()
    }

    fn outcome(&self) -> Option<JoinOutcome> {
        let line = || self.console.last().map(|line| line.outcome);
        self.report.as_ref().map(|report| report.outcome).or_else(line)
    }

    /// The first hard verdict that the console ever showed.
    fn refusal(&self) -> Option<&ConsoleLine> {
        self.console.iter().find(|line| line.outcome == JoinOutcome::Failed)
    }
}

/// Compares.
#[must_use]
pub fn judge(case: &Case, heard: &Heard) -> Judgement {
    let expected = case.expected().of_report();
    let named = heard.named();
    let names = || named.iter().map(ReasonName::as_str).collect::<Vec<_>>().join(", ");
    if expected == JoinOutcome::Ready
        && let Some(line) = heard.refusal()
    {
        let reasons: Vec<&str> = line.reasons.iter().map(ReasonName::as_str).collect();
        let (reasons, summary) = (reasons.join(", "), &line.summary);
        return Judgement::Wrong(format!("the node was refused: {reasons}: {summary}"));
    }
    if expected != JoinOutcome::Ready && heard.outcome() == Some(JoinOutcome::Ready) {
        return Judgement::Wrong("the node is ready, and must not be".into());
    }
    if heard.outcome() != Some(expected) {
        let outcome = heard.outcome().map_or("silent", JoinOutcome::label);
        return Judgement::NotYet(format!("the join is {outcome}, named: {}", names()));
    }
    if let Some(Named(reason)) = case.reason {
        let is_named = match expected {
            JoinOutcome::Ready => named.contains(&reason.into()),
            JoinOutcome::Joining | JoinOutcome::Failed => named.first() == Some(&reason.into()),
        };
        if !is_named {
            return Judgement::NotYet(format!("the cause is not {reason}: {}", names()));
        }
    }
    let allowed = |name: &ReasonName| {
        case.reason.is_some_and(|Named(reason)| *name == reason)
            || case.with.iter().any(|Named(reason)| *name == *reason)
            || (case.reason.is_none() && !name.is_hard())
    };
    if let Some(other) = named.iter().find(|name| !allowed(name)) {
        return Judgement::NotYet(format!("{other} is named too, and nothing is wrong with that"));
    }
    match unrepaired(case, heard) {
        Some(why) => Judgement::NotYet(why),
        None => channels(case, heard),
    }
}

/// What the report does not say of the repairs that must have been tried.
fn unrepaired(case: &Case, heard: &Heard) -> Option<String> {
    let said = heard.report.as_ref().map(|report| report.repairs.as_slice()).unwrap_or_default();
    case.repairs.iter().find_map(|(action, helped)| {
        let repair = said.iter().find(|repair| repair.action.starts_with(action));
        match repair {
            Some(repair) if repair.helped == *helped => None,
            Some(_) => Some(format!("`{action}` has helped: {}", !helped)),
            None => Some(format!("`{action}` was not tried")),
        }
    })
}

fn channels(case: &Case, heard: &Heard) -> Judgement {
    let Some(cause) = case.reason else {
        return match &heard.parameter {
            Some(text) => Judgement::NotYet(format!("a report is left in Parameter Store: {text}")),
            None => Judgement::Passed,
        };
    };
    let there = heard.channels(cause);
    let silent: Vec<String> =
        case.heard().difference(&there).map(|c| format!("{c:?}").to_lowercase()).collect();
    if silent.is_empty() {
        Judgement::Passed
    } else {
        Judgement::NotYet(format!("not heard on {}", silent.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use contract::join_report::SCHEMA;
    use contract::{Finding, Phase, Reason};
    use serde_json::json;

    use super::*;

    fn case(text: &str) -> Case {
        serde_yaml::from_str(&format!("case: a\nabout: Something is broken here.\n{text}")).unwrap()
    }

    fn heard(outcome: &str, reasons: &[Reason]) -> Heard {
        let report: JoinReport = serde_json::from_value(json!({
            "schema": SCHEMA, "cluster": "c", "pool": "a", "boot": "b", "attempt": 1,
            "instance": {"id": "i-1", "type": "t", "zone": "z", "name": "n"},
            "agent": {"version": "1"}, "started": "", "updated": "", "phases": [],
            "reasons": reasons.iter().map(|r| Finding::new(*r, Phase::Drivers, "seen")).collect::<Vec<_>>(),
            "outcome": outcome,
        }))
        .unwrap();
        let first = reasons.first().map(|reason| reason.name());
        Heard {
            console: vec![ConsoleLine::of(&report)],
            journal: first.map(str::to_owned).into_iter().collect(),
            parameter: first.map(|name| format!("v1 reason={name} phase=drivers attempt=1")),
            tag: first.map(|name| format!("failed {name}")),
            condition: None,
            report: Some(report),
        }
    }

    #[test]
    fn a_fault_must_be_the_cause_and_heard_everywhere() {
        let lost = case("reason: GpuLost\n");
        let whole = heard("failed", &[Reason::GpuLost]);
        assert_eq!(judge(&lost, &whole), Judgement::Passed);
        let silent = Heard { tag: None, ..whole.clone() };
        assert_eq!(judge(&lost, &silent), Judgement::NotYet("not heard on tag".into()));
        let prefix = Heard { parameter: Some("v1 reason=GpuLostX phase=x".into()), ..whole };
        assert_eq!(judge(&lost, &prefix), Judgement::NotYet("not heard on ssm".into()));
        for (outcome, reasons) in [
            ("joining", &[Reason::GpuLost][..]),
            ("failed", &[Reason::DriverHang, Reason::GpuLost]),
            ("failed", &[Reason::GpuLost, Reason::ClockSkewed]),
            ("failed", &[]),
        ] {
            let judged = judge(&lost, &heard(outcome, reasons));
            assert!(matches!(judged, Judgement::NotYet(_)), "{outcome} {reasons:?}: {judged:?}");
        }
        let both = case("reason: GpuLost\nwith: [ClockSkewed]\n");
        let two = heard("failed", &[Reason::GpuLost, Reason::ClockSkewed]);
        assert_eq!(judge(&both, &two), Judgement::Passed);
        let ready = heard("ready", &[]);
        assert!(matches!(judge(&lost, &ready), Judgement::Wrong(_)));
    }

    #[test]
    fn a_healthy_node_names_nothing_hard_ever() {
        let healthy = case("");
        assert_eq!(judge(&healthy, &heard("ready", &[])), Judgement::Passed);
        let mut refused = heard("ready", &[]);
        refused.console.insert(0, heard("failed", &[Reason::GpuLost]).console.remove(0));
        assert!(
            matches!(judge(&healthy, &refused), Judgement::Wrong(why) if why.contains("GpuLost"))
        );
        let mut soft = heard("ready", &[Reason::StsUnreachable]);
        assert!(matches!(judge(&healthy, &soft), Judgement::NotYet(why) if why.contains("left")));
        soft.parameter = None;
        assert_eq!(judge(&healthy, &soft), Judgement::Passed);
        let sts = case("reason: StsUnreachable\n");
        assert_eq!(judge(&sts, &soft), Judgement::Passed);
        assert!(matches!(judge(&sts, &heard("ready", &[])), Judgement::NotYet(_)));
    }
}
