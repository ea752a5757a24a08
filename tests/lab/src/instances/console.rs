//! A node's serial console, which the emulator serves through GetConsoleOutput.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use contract::console::ConsoleLine;
use contract::join_report::{JoinOutcome, SCHEMA};
use contract::reason::Reason;

/// The console of one node.
#[derive(Clone, Debug)]
pub struct Console {
    path: PathBuf,
    instance_id: String,
}

impl Console {
    /// The console below a node's root.
    #[must_use]
    pub fn of(root: &Path, instance_id: &str) -> Self {
        Self { path: root.join("dev/console"), instance_id: instance_id.to_owned() }
    }

    /// Prints a line, as the kernel and cloud-init do.
    pub fn print(&self, line: &str) {
        let written = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.path)
            .and_then(|mut file| writeln!(file, "{line}"));
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "console line lost");
        }
    }

    /// Prints what the install script in the user data prints when the agent cannot be installed.
    pub fn install_failed(&self, summary: &str) {
        let line = ConsoleLine {
            schema: SCHEMA.into(),
            at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            instance: self.instance_id.clone(),
            outcome: JoinOutcome::Failed,
            phase: None,
            attempt: 1,
            reasons: vec![Reason::AgentInstallFailed.into()],
            summary: summary.to_owned(),
        };
        self.print(&line.render());
    }

    /// The last line that was printed.
    #[must_use]
    pub fn last_line(&self) -> Option<String> {
        let text = std::fs::read(&self.path).ok()?;
        let text = String::from_utf8_lossy(&text);
        text.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_install_reads_as_the_agents_own_lines_do() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dev")).unwrap();
        let console = Console::of(root.path(), "i-1");
        console.print("[    0.0] boot");
        console.install_failed("sha256 is `a`, not `b`");
        let text = std::fs::read_to_string(root.path().join("dev/console")).unwrap();
        let line = ConsoleLine::last_in(&text).unwrap();
        assert_eq!(line.reasons[0].as_str(), "AgentInstallFailed");
        assert_eq!((line.instance.as_str(), line.outcome), ("i-1", JoinOutcome::Failed));
        assert!(console.last_line().unwrap().starts_with("ROLLCALL "));
    }
}
