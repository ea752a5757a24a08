//! nodeadm, run by PID 1 for the join, and what its end and its log say.

use contract::{ErrorChain, Finding, Phase, Reason};

use crate::host::Deadline;
use crate::host::exec::ExecError;
use crate::host::systemd::Systemd;

/// How many lines of the log are kept as evidence.
const EVIDENCE_LINES: u32 = 12;

/// How one of nodeadm's phases went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// How it ended.
    pub end: End,
    /// The end of its log.
    pub log: Vec<String>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Well.
    Success,
    /// With an error.
    Failed {
        /// systemd's word for it.
        result: String,
        /// Its exit status.
        status: Option<i32>,
    },
    /// It had not ended at the deadline.
    TimedOut,
    /// PID 1 was not asked: systemctl cannot be run.
    NotStarted(String),
}

/// Starts `unit` and waits for its end; it is asked to stop when it does not end in time.
pub async fn run(systemd: &Systemd, unit: &str, deadline: Deadline) -> Run {
    let end = match systemd.start(unit, deadline).await {
        Ok(output) if output.success() => End::Success,
        Ok(output) => {
            let state = systemd.show(unit).await.unwrap_or_default();
            let result = match state.result.as_str() {
                "" | "success" => output.stderr.trim().to_owned(),
                result => result.to_owned(),
            };
            End::Failed { result, status: state.exit_status }
        }
        Err(ExecError::TimedOut { .. }) => {
            if let Err(error) = systemd.stop_soon(unit).await {
                tracing::warn!(error = %ErrorChain(&error), unit, "could not stop the unit");
            }
            End::TimedOut
        }
        Err(error) => End::NotStarted(ErrorChain(&error).to_string()),
    };
    let log = match end {
        End::Success => Vec::new(),
        _ => systemd.tail(unit, EVIDENCE_LINES).await,
    };
    Run { end, log }
}

/// What is wrong with a run of nodeadm's phase `name`, if anything is.
#[must_use]
pub fn finding(run: &Run, name: &str, phase: Phase, failed: Reason) -> Option<Finding> {
    let (reason, how) = match &run.end {
        End::Success => return None,
        End::TimedOut => (Reason::NodeadmTimedOut, "did not end in time".to_owned()),
        End::NotStarted(why) => (failed, format!("was not started: {why}")),
        End::Failed { result, status } => {
            let status = status.map(|status| format!(" with status {status}")).unwrap_or_default();
            (failed, format!("ended{status} ({result})"))
        }
    };
    let mut summary = format!("nodeadm's {name} phase {how}");
    if let Some(cause) = cause(&run.log) {
        summary += &format!(": {cause}");
    }
    let finding = Finding::new(reason, phase, summary);
    Some(run.log.iter().fold(finding, |finding, line| finding.with_evidence(line.clone())))
}

/// The error that the log ends with: nodeadm writes JSON lines with `level`, `msg` and `error`.
fn cause(log: &[String]) -> Option<String> {
    log.iter().rev().find_map(|line| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        let text = |key: &str| value.get(key).and_then(|value| value.as_str());
        if !matches!(text("level")?, "error" | "fatal" | "panic" | "dpanic") {
            return None;
        }
        text("error").or_else(|| text("msg")).map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(end: End, log: &[&str]) -> Option<Finding> {
        let run = Run { end, log: log.iter().map(|line| (*line).to_owned()).collect() };
        finding(&run, "config", Phase::Bootstrap, Reason::NodeadmConfigFailed)
    }

    #[test]
    fn the_log_says_what_the_exit_code_does_not() {
        assert_eq!(of(End::Success, &[]), None);
        let failed = End::Failed { result: "exit-code".into(), status: Some(1) };
        let log = [
            r#"{"level":"info","msg":"Checking user is root.."}"#,
            r#"{"level":"fatal","msg":"Command failed","error":"Name is missing in cluster configuration"}"#,
            "rollcall-nodeadm@config.service: Main process exited",
        ];
        let found = of(failed.clone(), &log).unwrap();
        assert_eq!(
            found.summary,
            "nodeadm's config phase ended with status 1 (exit-code): Name is missing in cluster configuration"
        );
        assert_eq!(found.evidence.len(), 3);
        assert!(of(failed, &["no JSON"]).unwrap().summary.ends_with("(exit-code)"));
    }

    #[test]
    fn a_run_without_end_has_its_own_reason() {
        assert_eq!(of(End::TimedOut, &[]).unwrap().reason, Reason::NodeadmTimedOut);
        let found = of(End::NotStarted("no such file".into()), &[]).unwrap();
        assert_eq!(found.reason, Reason::NodeadmConfigFailed);
        assert!(found.summary.contains("no such file"));
    }
}
