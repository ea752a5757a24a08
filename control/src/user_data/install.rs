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
    use contract::{ConsoleLine, Reason, ReasonName};

    use super::*;

    #[test]
    fn a_url_cannot_leave_its_quotes() {
        let install = Install { url: "https://x/'; reboot; '".into(), sha256: "ab".into() };
        assert!(script(&install, "us-east-1").contains(r"url='https://x/'\''; reboot; '\'''"));
    }

    #[test]
    fn its_failure_is_a_line_that_control_reads() {
        let said = TEMPLATE.lines().find(|line| line.contains("line='ROLLCALL")).unwrap();
        let line = ConsoleLine::last_in(&said.replace('\'', "")).unwrap();
        assert_eq!(line.reasons, [ReasonName::from(Reason::AgentInstallFailed)]);
    }
}
