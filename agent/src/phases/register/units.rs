//! What containerd's and kubelet's units and kubelet's own log say of why there is no Node. Pure.

use std::time::Duration;

use contract::{Finding, Phase, Reason};

use crate::host::systemd::UnitState;

/// A service that has been restarted this often does not come up by itself.
const LOOP: u32 = 3;

/// How long a refusal may be the access entry on its way through EKS.
const ENTRY_PATIENCE: Duration = Duration::from_secs(30);

/// How many lines of kubelet's log are evidence.
pub(super) const EVIDENCE: usize = 8;

/// kubelet's words for flags or a configuration that it does not take.
const REJECTED: [&str; 9] = [
    "failed to load kubelet config",
    "failed to load drop-in kubelet config",
    "failed to merge kubelet config",
    "failed to validate kubelet",
    "failed to parse kubelet flag",
    "failed to set feature gates",
    "unrecognized feature gate",
    "unknown flag:",
    "invalid configuration",
];

/// Its words for a machine that it cannot work on: flags and configuration were taken.
const MACHINE: &str = "failed to run Kubelet";

/// Its words for a program that gets it credentials and is not there.
const NO_PLUGIN: [&str; 3] =
    ["plugin binary executable", "getting credentials: exec: executable", "aws: command not found"];

/// Its words for an API server that refuses it.
const REFUSED: [&str; 4] = [
    "Unauthorized",
    "the server has asked for the client to provide credentials",
    "You must be logged in to the server",
    "is forbidden: User",
];

/// Its words for a name that is another node's.
const OTHER_NAME: &str = "is not allowed to modify node";

/// Its words once everything is well.
const REGISTERED: &str = "Successfully registered node";

/// Why there is no Node, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It does not go away by itself.
    Final(Finding),
    /// It may.
    MayHeal(Finding),
}

/// What keeps kubelet from registering; `elapsed` is how long the phase has looked.
pub(super) fn cause(
    containerd: &UnitState,
    kubelet: &UnitState,
    log: &[String],
    elapsed: Duration,
) -> Option<Cause> {
    if let Some(cause) = containerd_down(containerd) {
        return Some(cause);
    }
    let said = last_word(log);
    let found = |reason, summary: String| {
        let tail = &log[log.len().saturating_sub(EVIDENCE)..];
        let finding = Finding::new(reason, Phase::Register, summary);
        tail.iter().fold(finding, |finding, line| finding.with_evidence(line.clone()))
    };
    match said {
        Some((Word::NoPlugin, line)) => {
            Some(Cause::Final(found(Reason::KubeletCredentialPluginMissing, message(line))))
        }
        Some((Word::Rejected, line)) if !kubelet.is_active() || kubelet.restarts > 0 => {
            Some(Cause::Final(found(Reason::KubeletConfigRejected, message(line))))
        }
        Some((Word::OtherName, line)) => {
            Some(Cause::Final(found(Reason::NodeNameMismatch, message(line))))
        }
        Some((Word::Refused, line)) => {
            let finding = found(Reason::KubeletUnauthorized, message(line));
            Some(if elapsed < ENTRY_PATIENCE {
                Cause::MayHeal(finding)
            } else {
                Cause::Final(finding)
            })
        }
        Some((Word::Rejected, _)) | None => kubelet_down(kubelet, found),
    }
}

fn containerd_down(unit: &UnitState) -> Option<Cause> {
    let how = format!("containerd is {} ({}, {})", unit.active, unit.sub, unit.result);
    let finding = |how| Finding::new(Reason::ContainerdNotActive, Phase::Register, how);
    if unit.active == "failed" {
        Some(Cause::Final(finding(how)))
    } else if unit.restarts >= LOOP && !unit.is_active() {
        let again = format!("{how} after {} restarts", unit.restarts);
        Some(Cause::Final(finding(again)))
    } else {
        (unit.active == "activating").then(|| Cause::MayHeal(finding(how)))
    }
}

fn kubelet_down(unit: &UnitState, found: impl Fn(Reason, String) -> Finding) -> Option<Cause> {
    let ended = match unit.exit_status {
        Some(status) if status != 0 => format!("; it ended with status {status}"),
        _ => String::new(),
    };
    let finding = |how: String| found(Reason::KubeletCrashLoop, how);
    if unit.active == "failed" {
        let why = if unit.result == "resources" {
            ": a file that its unit demands is missing (/etc/eks/kubelet/environment)"
        } else {
            ""
        };
        Some(Cause::Final(finding(format!("kubelet has failed ({}){why}{ended}", unit.result))))
    } else {
        let how = format!("kubelet has been restarted {} times{ended}", unit.restarts);
        match (unit.is_active(), unit.restarts) {
            (_, 0) | (true, 1..LOOP) => None,
            // It may have found its feet: the next looks tell.
            (true, _) | (false, 1..LOOP) => Some(Cause::MayHeal(finding(how))),
            (false, _) => Some(Cause::Final(finding(how))),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    NoPlugin,
    Rejected,
    OtherName,
    Refused,
}

/// The latest line that says something, unless all went well after it.
fn last_word(log: &[String]) -> Option<(Word, &str)> {
    let has = |line: &str, words: &[&str]| words.iter().any(|word| line.contains(word));
    let recent = log.iter().rev().take_while(|line| !line.contains(REGISTERED));
    recent.map(String::as_str).find_map(|line| {
        let word = if has(line, &NO_PLUGIN) {
            Word::NoPlugin
        } else if has(line, &REJECTED) && !line.contains(MACHINE) {
            Word::Rejected
        } else if line.contains(OTHER_NAME) {
            Word::OtherName
        } else if has(line, &REFUSED) {
            Word::Refused
        } else {
            return None;
        };
        Some((word, line))
    })
}

/// What a klog line says: its error, else its text without the head.
fn message(line: &str) -> String {
    let error = line.split_once("err=\"").map(|(_, quoted)| unquote(quoted));
    let text = || line.split_once("] ").map_or(line, |(_, text)| text).trim().to_owned();
    format!("kubelet: {}", error.unwrap_or_else(text))
}

/// A quoted string up to its end, without its escapes.
fn unquote(quoted: &str) -> String {
    let mut text = String::new();
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => text.extend(characters.next()),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(active: &str, restarts: u32) -> UnitState {
        UnitState { active: active.into(), restarts, ..UnitState::default() }
    }

    fn word(containerd: &UnitState, kubelet: &UnitState, log: &[&str], seconds: u64) -> String {
        let log: Vec<String> = log.iter().map(|line| (*line).to_owned()).collect();
        match cause(containerd, kubelet, &log, Duration::from_secs(seconds)) {
            None => "nothing".into(),
            Some(Cause::Final(finding)) => format!("fail {}", finding.reason),
            Some(Cause::MayHeal(finding)) => format!("wait {}", finding.reason),
        }
    }

    #[test]
    fn the_units_say_what_is_down() {
        let up = unit("active", 0);
        let result = |result: &str| UnitState { result: result.into(), ..unit("failed", 0) };
        for (containerd, kubelet, expected) in [
            (up.clone(), up.clone(), "nothing"),
            (UnitState::default(), UnitState::default(), "nothing"),
            (unit("activating", 0), unit("inactive", 0), "wait ContainerdNotActive"),
            (unit("activating", 3), unit("inactive", 0), "fail ContainerdNotActive"),
            (unit("failed", 0), unit("activating", 9), "fail ContainerdNotActive"),
            (unit("active", 5), up.clone(), "nothing"),
            (up.clone(), unit("activating", 1), "wait KubeletCrashLoop"),
            (up.clone(), unit("activating", 3), "fail KubeletCrashLoop"),
            (up.clone(), unit("active", 3), "wait KubeletCrashLoop"),
            (up.clone(), unit("active", 1), "nothing"),
            (up.clone(), result("resources"), "fail KubeletCrashLoop"),
            (up.clone(), result("exit-code"), "fail KubeletCrashLoop"),
        ] {
            assert_eq!(
                word(&containerd, &kubelet, &[], 60),
                expected,
                "{containerd:?} {kubelet:?}"
            );
        }
    }

    const REJECTS: &str = r#"E1120 20:00:00.000000    1234 run.go:72] "command failed" err="failed to validate kubelet flags: unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [node-role.kubernetes.io/gpu]""#;
    const REFUSES: &str = r#"E1120 20:00:00.000000    1234 kubelet_node_status.go:107] "Unable to register node with API server" err="Unauthorized" node="n1""#;
    const SUCCESS: &str = r#"I1120 20:00:01.000000    1234 kubelet_node_status.go:78] "Successfully registered node" node="n1""#;

    #[test]
    fn kubelets_own_words_come_before_the_state_of_its_unit() {
        let up = unit("active", 0);
        let looping = unit("activating", 2);
        for (kubelet, log, seconds, expected) in [
            (&looping, &[REJECTS][..], 2, "fail KubeletConfigRejected"),
            (&up, &[REJECTS], 2, "nothing"),
            (&up, &[REFUSES], 5, "wait KubeletUnauthorized"),
            (&up, &[REFUSES], 30, "fail KubeletUnauthorized"),
            (&up, &[REFUSES, SUCCESS], 30, "nothing"),
            (&up, &[SUCCESS, REFUSES], 30, "fail KubeletUnauthorized"),
            (&looping, &[REFUSES, REJECTS], 30, "fail KubeletConfigRejected"),
            (&looping, &["nothing of note"], 2, "wait KubeletCrashLoop"),
            (
                &looping,
                &[
                    r#"E1 1 run.go:72] "x" err="failed to run Kubelet: invalid configuration: cgroup""#,
                ],
                2,
                "wait KubeletCrashLoop",
            ),
        ] {
            assert_eq!(word(&up, kubelet, log, seconds), expected, "{log:?}");
        }
        for (line, reason) in [
            (
                r#"E1 1 run.go:72] "command failed" err="failed to run Kubelet: plugin binary executable /etc/eks/x did not exist""#,
                "fail KubeletCredentialPluginMissing",
            ),
            (
                r#"E1 1 reflector.go:1] "Failed" err="Get \"https://x\": getting credentials: exec: executable aws not found""#,
                "fail KubeletCredentialPluginMissing",
            ),
            (
                r#"E1 1 k.go:1] "Unable" err="nodes \"a\" is forbidden: node \"b\" is not allowed to modify node \"a\"""#,
                "fail NodeNameMismatch",
            ),
            (
                r#"E1 1 run.go:72] "command failed" err="failed to load kubelet config file, path: /etc/k, error: x""#,
                "fail KubeletConfigRejected",
            ),
        ] {
            assert_eq!(word(&up, &looping, &[line], 2), reason, "{line}");
        }
    }

    #[test]
    fn the_summary_is_kubelets_own_error() {
        assert_eq!(
            message(REJECTS),
            "kubelet: failed to validate kubelet flags: unknown 'kubernetes.io' or 'k8s.io' labels \
             specified with --node-labels: [node-role.kubernetes.io/gpu]"
        );
        assert_eq!(message(REFUSES), "kubelet: Unauthorized");
        assert_eq!(message("Error: unknown flag: --x"), "kubelet: Error: unknown flag: --x");
        assert!(message("I1 1 a.go:1] \"text\" err=\"say \\\"no\\\"\"").ends_with("say \"no\""));
    }
}
