//! A diagnosis in node-problem-detector's custom plugin protocol: an exit code and one line.
//!
//! 0 says that all is well, 1 that there is a problem, anything else that it is not known. The line
//! becomes the message of the condition or event, of which node-problem-detector keeps 80 bytes
//! unless told otherwise (`max_output_length`).

use contract::Diagnosis;
use contract::diagnosis::CheckState;
use contract::join_report::JoinOutcome;

/// What node-problem-detector keeps of a plugin's output by default, in bytes.
pub const LINE_MAX: usize = 80;

/// What a plugin answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// All is well.
    Ok = 0,
    /// There is a problem.
    Problem = 1,
    /// It cannot be told.
    Unknown = 2,
}

/// The answer, and its line without a line feed.
#[must_use]
pub fn answer(diagnosis: &Diagnosis) -> (Status, String) {
    let status = match diagnosis.outcome {
        JoinOutcome::Ready => Status::Ok,
        JoinOutcome::Failed => Status::Problem,
        JoinOutcome::Joining => Status::Unknown,
    };
    let text = match diagnosis.cause() {
        Some(cause) => format!("{}: {}", cause.reason, cause.summary),
        None if status == Status::Ok => match &diagnosis.gpus {
            Some(gpus) => format!("ready, {} GPUs proven", gpus.nvml.unwrap_or_default()),
            None => "ready".to_owned(),
        },
        None => {
            let waits = |state| !matches!(state, CheckState::Passed | CheckState::Skipped);
            let next = diagnosis.phases.iter().find(|check| waits(check.state));
            let next = next.map_or("the join", |check| check.phase.label());
            format!("joining: {next} has not passed yet")
        }
    };
    (status, cut(&text))
}

/// One line that fits: line feeds become spaces, and what is cut is marked.
fn cut(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > LINE_MAX {
        line.truncate(line.floor_char_boundary(LINE_MAX - "…".len()));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use contract::{Finding, Phase, Reason};

    use super::*;

    fn diagnosis(outcome: JoinOutcome, cause: Option<Finding>) -> Diagnosis {
        let golden = include_str!("../../../contract/golden/diagnosis.json");
        let golden: Diagnosis = serde_json::from_str(golden).unwrap();
        Diagnosis { outcome, reasons: cause.into_iter().collect(), ..golden }
    }

    #[test]
    fn says_what_the_protocol_knows() {
        let lost = || Some(Finding::new(Reason::GpuLost, Phase::Drivers, "1 of 8\nGPUs is lost"));
        let soft = Finding::new(Reason::StsUnreachable, Phase::Preflight, "no answer");
        for (outcome, cause, status, line) in [
            (JoinOutcome::Ready, None, Status::Ok, "ready, 0 GPUs proven"),
            (JoinOutcome::Ready, Some(soft), Status::Ok, "StsUnreachable: no answer"),
            (JoinOutcome::Failed, lost(), Status::Problem, "GpuLost: 1 of 8 GPUs is lost"),
            (JoinOutcome::Joining, None, Status::Unknown, "joining: register has not passed yet"),
        ] {
            assert_eq!(answer(&diagnosis(outcome, cause)), (status, line.to_owned()));
        }
    }

    #[test]
    fn a_line_has_80_bytes_at_most() {
        let long = Finding::new(Reason::GpuLost, Phase::Drivers, "ü".repeat(200));
        let (_, line) = answer(&diagnosis(JoinOutcome::Failed, Some(long)));
        assert!(line.len() <= LINE_MAX && line.len() > LINE_MAX - 3, "{}", line.len());
        assert!(line.ends_with('…'));
    }
}
