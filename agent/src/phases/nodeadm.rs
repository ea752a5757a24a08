//! nodeadm, run by PID 1 for the join, and what its end and its log say.
//!
//! nodeadm logs with zap's console encoder: `fatal cli/main.go:35 Command failed {"error": "…"}`. It
//! waits without a limit for EC2 and for its daemons; whoever runs it has one, and the step that it
//! was in says what it waited for.

use std::path::PathBuf;
use std::time::Duration;

use contract::{ErrorChain, Finding, Phase, Reason};
use serde_json::Value;
use tokio::time::sleep;

use crate::aws::ec2::Ec2;
use crate::aws::signed::CallError;
use crate::host::exec::{ExecError, Output};
use crate::host::systemd::Systemd;
use crate::host::{Deadline, Root, files};

/// How many lines of the log are read: a disk script says much before it fails.
const LOG_LINES: u32 = 80;

/// How many of them are kept as evidence, and how much of each.
const EVIDENCE_LINES: usize = 12;
const EVIDENCE_WIDTH: usize = 300;

/// What nodeadm's error says, in lower case, and the reason that it means. All texts of a row have
/// to be there; the first row that fits wins.
const CAUSES: [(&[&str], Reason); 24] = [
    (&["no space left on device"], Reason::DiskFull),
    (&["is missing in cluster configuration"], Reason::NodeConfigInvalid),
    (&["illegal base64"], Reason::NodeConfigInvalid),
    (&["failed to decode node config"], Reason::NodeConfigInvalid),
    (&["cluster id must be provided"], Reason::NodeConfigInvalid),
    (&["failed to merge node configs"], Reason::NodeConfigInvalid),
    (&["failed to parse config file"], Reason::NodeConfigInvalid),
    (&["no config in chain"], Reason::NodeConfigMissing),
    (&["no ec2 imds role found"], Reason::CredentialsMissing),
    (&["ec2: describeinstances", "unauthorizedoperation"], Reason::Ec2ApiDenied),
    (&["ec2: describeinstances", "dial tcp"], Reason::Ec2ApiUnreachable),
    (&["ec2: describeinstances", "deadline exceeded"], Reason::Ec2ApiUnreachable),
    (&["ec2: describeinstances", "tls handshake timeout"], Reason::Ec2ApiUnreachable),
    (&["ec2: describeinstances", "proxyconnect"], Reason::ProxyMisconfigured),
    // The service answers: there is no role to list.
    (&["operation error ec2imds", "security-credentials", "404"], Reason::CredentialsMissing),
    (&["operation error ec2imds"], Reason::ImdsUnreachable),
    (&["image credential provider binary was not found"], Reason::KubeletCredentialPluginMissing),
    (&["fork/exec /usr/bin/kubelet"], Reason::KubeletMissing),
    (&["exec: \"kubelet\""], Reason::KubeletMissing),
    (&["fork/exec /usr/bin/containerd"], Reason::ContainerRuntimeMissing),
    (&["exec: \"containerd\""], Reason::ContainerRuntimeMissing),
    (&["failed to get config template version"], Reason::ContainerRuntimeMisconfigured),
    (&["toml:"], Reason::ContainerRuntimeMisconfigured),
    (&["exec: \"setup-local-disks\""], Reason::DiskSetupFailed),
];

/// How long nodeadm's config phase may take before EC2 is asked whether it refuses: on a healthy
/// node it has ended by then. And how often it must refuse.
const SUSPICION: Duration = Duration::from_secs(5);
const REFUSALS: u32 = 3;

/// Between two looks at a run that another life of the join has asked for.
const POLL: Duration = Duration::from_millis(100);

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
    /// It was at it still when something else said why it will not end: the reason, and how.
    Hopeless(Reason, String),
    /// PID 1 was not asked: systemctl cannot be run.
    NotStarted(String),
}

/// Starts `unit` and waits for its end; it is asked to stop when it does not end in time, or when
/// `hopeless` says meanwhile that it will not.
pub async fn run(
    systemd: &Systemd,
    unit: &str,
    deadline: Deadline,
    hopeless: impl Future<Output = (Reason, String)>,
) -> Run {
    let started = tokio::select! {
        started = systemd.start(unit, deadline) => Ok(started),
        why = hopeless => Err(why),
    };
    let end = match started {
        Ok(started) => end_of(systemd, unit, started).await,
        Err((reason, how)) => {
            give_up(systemd, unit).await;
            End::Hopeless(reason, how)
        }
    };
    let log = match end {
        End::Success => Vec::new(),
        _ => systemd.tail(unit, LOG_LINES).await,
    };
    Run { end, log }
}

async fn end_of(systemd: &Systemd, unit: &str, started: Result<Output, ExecError>) -> End {
    match started {
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
            give_up(systemd, unit).await;
            End::TimedOut
        }
        Err(error) => End::NotStarted(ErrorChain(&error).to_string()),
    }
}

async fn give_up(systemd: &Systemd, unit: &str) {
    if let Err(error) = systemd.stop_soon(unit).await {
        tracing::warn!(error = %ErrorChain(&error), unit, "could not stop the unit");
    }
}

/// Ends when EC2 has refused again and again what nodeadm asks it for: nodeadm takes a refusal for
/// something that passes, and waits ten minutes. A right that is on its way through IAM comes sooner.
pub async fn ec2_refuses(ec2: &Ec2, instance: &str) -> (Reason, String) {
    let mut refusals = 0;
    loop {
        sleep(SUSPICION).await;
        match ec2.describe(instance, Deadline::within(SUSPICION)).await {
            Err(CallError::Refused { code, .. }) if is_denial(&code) => {
                refusals += 1;
                if refusals == REFUSALS {
                    let how =
                        format!("waits for EC2's DescribeInstances, which is refused: {code}");
                    return (Reason::Ec2ApiDenied, how);
                }
            }
            _ => refusals = 0,
        }
    }
}

fn is_denial(code: &str) -> bool {
    ["UnauthorizedOperation", "AccessDenied"].iter().any(|denied| code.contains(denied))
}

/// Where PID 1 leaves a file when a phase of nodeadm's has ended well (`rollcall-nodeadm@.service`):
/// a join that is killed while PID 1 goes on learns by it that nothing is left to be done.
const ENDED_WELL: &str = "/run/rollcall-nodeadm";

fn mark_of(root: &Root, unit: &str) -> PathBuf {
    let instance = unit.split(['@', '.']).nth(1).unwrap_or(unit);
    root.path(ENDED_WELL).join(instance)
}

/// Takes away what an earlier run of `unit` left: the next one speaks for itself.
pub fn forget(root: &Root, unit: &str) {
    if let Err(error) = files::remove(&mark_of(root, unit)) {
        tracing::warn!(error = %ErrorChain(&error), unit, "an earlier run is not forgotten");
    }
}

/// Waits for the end of a run of `unit` that PID 1 may still be at; whether it ended well.
pub async fn has_passed(root: &Root, systemd: &Systemd, unit: &str, deadline: Deadline) -> bool {
    loop {
        let state = systemd.show(unit).await.unwrap_or_default();
        if !state.is_pending() || deadline.has_passed() {
            return mark_of(root, unit).exists();
        }
        sleep(POLL.min(deadline.remaining())).await;
    }
}

/// What is wrong with a run of nodeadm's phase `name`, if anything is.
#[must_use]
pub fn finding(run: &Run, name: &str, phase: Phase, failed: Reason) -> Option<Finding> {
    let lines: Vec<Line> = run.log.iter().filter_map(|line| Line::parse(line)).collect();
    let error = lines.iter().rev().find_map(Line::error);
    let (reason, how) = match &run.end {
        End::Success => return None,
        End::TimedOut => (Reason::NodeadmTimedOut, "did not end in time".to_owned()),
        End::Hopeless(reason, how) => (*reason, how.clone()),
        End::NotStarted(why) => (failed, format!("was not started: {why}")),
        End::Failed { result, status } => {
            let reason = error.and_then(meant).or_else(|| step(&lines));
            let reason = reason.or_else(|| unborn(run, &lines, *status));
            let status = status.map(|status| format!(" with status {status}")).unwrap_or_default();
            (reason.unwrap_or(failed), format!("ended{status} ({result})"))
        }
    };
    let mut summary = format!("nodeadm's {name} phase {how}");
    match (&run.end, error) {
        (End::TimedOut, _) => {
            if let Some(wait) = lines.iter().rev().find_map(Line::waits_for) {
                summary += &format!(": it waits for {wait}");
            }
        }
        (_, Some(error)) => summary += &format!(": {error}"),
        (_, None) => {}
    }
    let finding = Finding::new(reason, phase, summary);
    let last = run.log.iter().skip(run.log.len().saturating_sub(EVIDENCE_LINES));
    Some(last.fold(finding, |finding, line| finding.with_evidence(evidence(line))))
}

/// The reason that an error of nodeadm's means, when it is one that we know.
fn meant(error: &str) -> Option<Reason> {
    let error = error.to_ascii_lowercase();
    let says = |(texts, _): &&(&[&str], Reason)| texts.iter().all(|text| error.contains(text));
    CAUSES.iter().find(says).map(|(_, reason)| *reason)
}

/// The reason that the step means in which nodeadm failed: a script's own words are not nodeadm's.
fn step(lines: &[Line]) -> Option<Reason> {
    let last = lines.iter().rev().find(|line| line.error().is_none())?;
    let is_disks =
        last.message == "Setting up system aspect.." && last.field("name") == Some("local-disk");
    is_disks.then_some(Reason::DiskSetupFailed)
}

/// The reason why nodeadm has said nothing at all: it never ran. 203 is systemd's word for a
/// program that cannot be executed, 126 and 127 are a shell's.
fn unborn(run: &Run, lines: &[Line], status: Option<i32>) -> Option<Reason> {
    let says = |text: &str| run.log.iter().any(|line| line.contains(text));
    match status {
        _ if !lines.is_empty() => None,
        Some(127) => Some(Reason::NodeadmMissing),
        Some(126 | 203) => Some(Reason::NodeadmNotExecutable),
        _ if says("Permission denied") || says("Exec format error") => {
            Some(Reason::NodeadmNotExecutable)
        }
        _ => None,
    }
}

/// One line that nodeadm logged.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// `info`, `warn`, `error`, `fatal`, …
    pub level: String,
    /// What it says.
    pub message: String,
    /// Its fields.
    pub fields: Value,
}

impl Line {
    /// Reads one line of the journal; none when it is not nodeadm's own.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (level, rest) = line.trim().split_once([' ', '\t'])?;
        let (caller, rest) = rest.split_once([' ', '\t'])?;
        let is_level =
            matches!(level, "debug" | "info" | "warn" | "error" | "dpanic" | "panic" | "fatal");
        if !is_level || !caller.contains(".go:") {
            return None;
        }
        let at_fields = rest.char_indices().filter(|(_, c)| *c == '{').find_map(|(at, _)| {
            let fields: Value = serde_json::from_str(&rest[at..]).ok()?;
            fields.is_object().then_some((at, fields))
        });
        let (message, fields) = match at_fields {
            Some((at, fields)) => (rest[..at].trim_end().to_owned(), fields),
            None => (rest.to_owned(), Value::Null),
        };
        Some(Self { level: level.to_owned(), message, fields })
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(Value::as_str)
    }

    /// The error that it reports.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        let is_error = matches!(self.level.as_str(), "error" | "dpanic" | "panic" | "fatal");
        is_error.then(|| self.field("error").unwrap_or(&self.message))
    }

    /// What nodeadm does after it has said this, where that can take for ever.
    fn waits_for(&self) -> Option<String> {
        let name = self.field("name").unwrap_or("a daemon");
        match self.message.as_str() {
            "Fetching instance details.." => {
                let what = "the metadata service and EC2's DescribeInstances";
                Some(format!("{what}: is the EC2 API reachable, and may the role ask it?"))
            }
            "Ensuring daemon is running.." => Some(format!("`{name}.service` to be active")),
            "Setting up system aspect.." => Some(format!("its step `{name}`")),
            "Configuring daemon..." => Some(format!("`{name}` to be configured")),
            _ => None,
        }
    }
}

/// A line as evidence: of nodeadm's own lines only what cannot hold the node's configuration, which
/// nodeadm logs whole, proxy passwords included.
fn evidence(line: &str) -> String {
    let text = match Line::parse(line) {
        Some(line) => {
            let mut text = format!("{}: {}", line.level, line.message);
            for name in ["name", "path", "error"] {
                if let Some(value) = line.field(name) {
                    text += &format!(" ({name}: {value})");
                }
            }
            text
        }
        None => line.to_owned(),
    };
    match text.char_indices().nth(EVIDENCE_WIDTH) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(end: End, log: &[&str]) -> Option<Finding> {
        let run = Run { end, log: log.iter().map(|line| (*line).to_owned()).collect() };
        finding(&run, "config", Phase::Bootstrap, Reason::NodeadmConfigFailed)
    }

    fn failed(status: i32) -> End {
        End::Failed { result: "exit-code".into(), status: Some(status) }
    }

    /// As the real nodeadm prints it.
    const LOG: [&str; 4] = [
        r#"info init/init.go:52 Checking user is root.."#,
        r#"info init/init.go:96 Loaded configuration {"config": {"spec": {"instance": {"environment": {"default": {"HTTPS_PROXY": "http://u:secret@p"}}}}}}"#,
        r#"fatal cli/main.go:35 Command failed {"error": "Name is missing in cluster configuration"}"#,
        "rollcall-nodeadm@config.service: Main process exited, code=exited, status=1/FAILURE",
    ];

    #[test]
    fn the_log_says_what_the_exit_code_does_not() {
        assert_eq!(of(End::Success, &[]), None);
        let refused = of(End::Hopeless(Reason::Ec2ApiDenied, "waits: Denied".into()), &[]).unwrap();
        assert_eq!(refused.reason, Reason::Ec2ApiDenied);
        assert_eq!(refused.summary, "nodeadm's config phase waits: Denied");
        assert!(is_denial("UnauthorizedOperation") && !is_denial("RequestTimeTooSkewed"));
        let found = of(failed(1), &LOG).unwrap();
        assert_eq!(found.reason, Reason::NodeConfigInvalid);
        assert_eq!(
            found.summary,
            "nodeadm's config phase ended with status 1 (exit-code): Name is missing in cluster configuration"
        );
        assert_eq!(found.evidence.len(), 4);
        assert_eq!(found.evidence[1], "info: Loaded configuration");
        assert!(!format!("{found:?}").contains("secret"));
        let unknown = of(failed(1), &["garbage {", "fatal x"]).unwrap();
        assert_eq!(unknown.reason, Reason::NodeadmConfigFailed);
        assert!(unknown.summary.ends_with("(exit-code)"));
    }

    #[test]
    fn each_error_has_its_reason() {
        for (error, reason) in [
            (
                "config provider at index 1 failed: failed to parse config file 10-a.yaml: failed to decode node config, yaml: line 3: could not find expected ':'",
                Reason::NodeConfigInvalid,
            ),
            ("no config in chain", Reason::NodeConfigMissing),
            (
                "operation error ec2imds: GetMetadata, exceeded maximum number of attempts, 60",
                Reason::ImdsUnreachable,
            ),
            (
                "operation error ec2imds: meta-data/iam/security-credentials/: http response error StatusCode: 404",
                Reason::CredentialsMissing,
            ),
            ("fork/exec /usr/bin/kubelet: exec format error", Reason::KubeletMissing),
            (
                "operation error EC2: DescribeInstances, exceeded maximum number of attempts, 30, https response error StatusCode: 0, RequestID: , request send failed, Post \"https://ec2.us-east-1.amazonaws.com/\": dial tcp 10.0.0.1:443: i/o timeout",
                Reason::Ec2ApiUnreachable,
            ),
            (
                "expected err to be of type smithy.APIError, got operation error EC2: DescribeInstances, https response error StatusCode: 0, context deadline exceeded",
                Reason::Ec2ApiUnreachable,
            ),
            (
                "image credential provider binary was not found on path /etc/eks/x. error: stat",
                Reason::KubeletCredentialPluginMissing,
            ),
            (
                "exec: \"containerd\": executable file not found in $PATH",
                Reason::ContainerRuntimeMissing,
            ),
            ("write /etc/containerd/config.toml: no space left on device", Reason::DiskFull),
            ("toml: expected character =", Reason::ContainerRuntimeMisconfigured),
            ("something that nobody has seen", Reason::NodeadmConfigFailed),
        ] {
            let line = format!(
                "fatal cli/main.go:35 Command failed {}",
                serde_json::json!({ "error": error })
            );
            assert_eq!(of(failed(1), &[&line]).unwrap().reason, reason, "{error}");
        }
        assert_eq!(
            of(failed(127), &["sh: 1: exec: /usr/bin/nodeadm: not found"]).unwrap().reason,
            Reason::NodeadmMissing
        );
    }

    #[test]
    fn disks_are_their_scripts_and_silence_is_nodeadms() {
        let disks = [
            r#"info init/init.go:230 Setting up system aspect.. {"name": "local-disk"}"#,
            "mdadm: cannot open /dev/nvme1n1: Device or resource busy",
            "Exited with error on line 47",
            r#"fatal cli/main.go:35 Command failed {"error": "exit status 1"}"#,
        ];
        let found = of(failed(1), &disks).unwrap();
        assert_eq!(found.reason, Reason::DiskSetupFailed);
        assert_eq!(found.evidence[1], disks[1]);
        for (status, line, reason) in [
            (203, "Failed to locate executable /usr/bin/nodeadm", Reason::NodeadmNotExecutable),
            (126, "sh: 1: exec: /usr/bin/nodeadm: Permission denied", Reason::NodeadmNotExecutable),
            (1, "sh: 1: /usr/bin/nodeadm: Exec format error", Reason::NodeadmNotExecutable),
            (2, "panic: runtime error", Reason::NodeadmConfigFailed),
        ] {
            assert_eq!(of(failed(status), &[line]).unwrap().reason, reason, "{line}");
        }
    }

    #[test]
    fn a_run_without_end_says_what_it_waits_for() {
        for (step, waits) in [
            (r#"info init/init.go:143 Fetching instance details.."#, "DescribeInstances"),
            (
                r#"info init/init.go:210 Ensuring daemon is running.. {"name": "kubelet"}"#,
                "`kubelet.service`",
            ),
            (
                r#"info init/init.go:230 Setting up system aspect.. {"name": "local-disk"}"#,
                "`local-disk`",
            ),
        ] {
            let found = of(End::TimedOut, &[step, "mdadm: a line of a script"]).unwrap();
            assert_eq!(found.reason, Reason::NodeadmTimedOut);
            assert!(found.summary.contains(waits), "{}", found.summary);
        }
        assert_eq!(
            of(End::TimedOut, &[]).unwrap().summary,
            "nodeadm's config phase did not end in time"
        );
        let found = of(End::NotStarted("no such file".into()), &[]).unwrap();
        assert_eq!(found.reason, Reason::NodeadmConfigFailed);
        assert!(found.summary.contains("no such file"));
    }

    #[test]
    fn lines_are_zaps_or_somebody_elses() {
        let line = Line::parse(r#"warn a/b.go:1 odd {brace} here {"error": "x {y}"}"#).unwrap();
        assert_eq!((line.level.as_str(), line.message.as_str()), ("warn", "odd {brace} here"));
        assert_eq!(line.error(), None);
        for other in
            ["", "info", "info no caller", "loud a.go:1 x", "rollcall-nodeadm@run.service: Failed"]
        {
            assert_eq!(Line::parse(other), None, "{other}");
        }
    }
}
