//! The script that installs the agent on a stock image.

use contract::agent_config::Install;

const TEMPLATE: &str = include_str!("install.sh");

/// The script for one tarball.
pub(super) fn script(install: &Install, region: &str) -> String {
    TEMPLATE
        .replace("@URL@", &quoted(&install.url))
        .replace("@SHA256@", &quoted(&install.sha256))
        .replace("@REGION@", &quoted(region))
}

/// The inside of a single-quoted word of shell.
fn quoted(text: &str) -> String {
    text.replace('\'', r"'\''")
}

#[cfg(test)]
mod tests {
    use contract::join_report::JoinOutcome;
    use contract::{ConsoleLine, Reason, ReasonName};

    use super::*;

    #[test]
    fn a_url_cannot_leave_its_quotes() {
        let install = Install { url: "https://x/'; reboot; '".into(), sha256: "ab".into() };
        assert!(script(&install, "us-east-1").contains(r"url='https://x/'\''; reboot; '\'''"));
    }

    /// What the shell makes of the line, with its two variables filled in.
    #[test]
    fn its_failure_is_a_line_that_control_reads() {
        let said = TEMPLATE.lines().find(|line| line.contains("line='ROLLCALL")).unwrap();
        let (now, why) = ("2026-11-20T20:00:03Z", "could not fetch the tarball");
        let said = said.replace("'\"$now\"'", now).replace("'\"$1\"'", why);
        let line = ConsoleLine::last_in(&said).unwrap();
        assert_eq!((line.at.as_str(), line.summary.as_str()), (now, why));
        assert_eq!(line.outcome, JoinOutcome::Failed);
        assert_eq!(line.reasons, [ReasonName::from(Reason::AgentInstallFailed)]);
    }

    /// The summaries stand inside a JSON string that the shell builds: no quote, no backslash.
    #[test]
    fn no_reason_for_failing_breaks_the_line() {
        let reasons: Vec<_> = TEMPLATE.lines().filter(|l| l.contains("fail '")).collect();
        assert!(reasons.len() >= 5);
        for line in reasons {
            let (_, said) = line.split_once("fail '").unwrap();
            let (said, _) = said.split_once('\'').unwrap();
            assert!(!said.contains(['"', '\\']), "{said}");
        }
    }
}
