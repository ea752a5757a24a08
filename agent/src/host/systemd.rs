//! PID 1, spoken to through the node's own `systemctl` and `journalctl`.

use std::collections::HashMap;
use std::time::Duration;

use super::exec::{self, ExecError, Output};
use super::{Deadline, Root};

/// How long a question (not an action) may take.
const QUESTION: Duration = Duration::from_secs(10);

/// The properties that [`Systemd::show`] asks for.
const PROPERTIES: &str = "LoadState,ActiveState,SubState,Result,ExecMainStatus,\
    ExecMainStartTimestampMonotonic,StatusText,Job,NRestarts";

/// systemd of one root.
#[derive(Clone, Debug)]
pub struct Systemd {
    root: Root,
}

/// How a unit stands; what systemd does not say is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitState {
    /// `loaded`, `not-found`, `masked`, …
    pub load: String,
    /// `active`, `inactive`, `activating`, `failed`, …
    pub active: String,
    /// `running`, `exited`, `dead`, …
    pub sub: String,
    /// `success`, `exit-code`, `timeout`, `signal`, …
    pub result: String,
    /// Exit status of the main process of the last run.
    pub exit_status: Option<i32>,
    /// When its main process was last started, counted from the boot.
    pub started: Option<Duration>,
    /// What the unit says of itself.
    pub status: String,
    /// Whether a job for it is queued.
    pub queued: bool,
    /// How often it has been restarted by itself.
    pub restarts: u32,
}

impl UnitState {
    /// Whether there is such a unit.
    #[must_use]
    pub fn exists(&self) -> bool {
        !matches!(self.load.as_str(), "not-found" | "masked" | "")
    }

    /// Whether it is up.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active == "active"
    }

    /// Whether it is on its way, or waits for its turn.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.active == "activating" || (self.active == "inactive" && self.queued)
    }

    fn parse(show: &str) -> Self {
        let values: HashMap<_, _> =
            show.lines().filter_map(|line| line.trim_end().split_once('=')).collect();
        let text = |key: &str| values.get(key).copied().unwrap_or_default().to_owned();
        Self {
            load: text("LoadState"),
            active: text("ActiveState"),
            sub: text("SubState"),
            result: text("Result"),
            exit_status: text("ExecMainStatus").parse().ok(),
            started: text("ExecMainStartTimestampMonotonic")
                .parse()
                .ok()
                .filter(|at| *at != 0)
                .map(Duration::from_micros),
            status: text("StatusText"),
            queued: values.get("Job").is_some_and(|job| !matches!(*job, "" | "0")),
            restarts: text("NRestarts").parse().unwrap_or_default(),
        }
    }
}

impl Systemd {
    /// systemd below `root`.
    #[must_use]
    pub const fn new(root: Root) -> Self {
        Self { root }
    }

    /// Starts a unit and waits for its job; a oneshot is then over. Joins a job that is under way.
    ///
    /// # Errors
    /// When systemctl cannot be run, or the job does not end in time.
    pub async fn start(&self, unit: &str, deadline: Deadline) -> Result<Output, ExecError> {
        self.systemctl(&["start", unit], deadline).await
    }

    /// Asks for a unit to be stopped, and does not wait.
    ///
    /// # Errors
    /// When systemctl cannot be run.
    pub async fn stop_soon(&self, unit: &str) -> Result<Output, ExecError> {
        self.systemctl(&["stop", "--no-block", unit], Deadline::within(QUESTION)).await
    }

    /// How a unit stands.
    ///
    /// # Errors
    /// When systemctl cannot be run, or does not answer.
    pub async fn show(&self, unit: &str) -> Result<UnitState, ExecError> {
        let arguments = ["show", "-p", PROPERTIES, unit];
        let output = self.systemctl(&arguments, Deadline::within(QUESTION)).await?;
        Ok(UnitState::parse(&output.stdout))
    }

    /// How several units stand, in their order, asked at once.
    ///
    /// # Errors
    /// As [`Self::show`].
    pub async fn show_all<const N: usize>(
        &self,
        units: [&str; N],
    ) -> Result<[UnitState; N], ExecError> {
        let mut arguments = vec!["show", "-p", PROPERTIES];
        arguments.extend(units);
        let output = self.systemctl(&arguments, Deadline::within(QUESTION)).await?;
        let mut blocks = output.stdout.split("\n\n").map(UnitState::parse);
        Ok(std::array::from_fn(|_| blocks.next().unwrap_or_default()))
    }

    /// The last `lines` lines that a unit logged in this boot, oldest first; empty when there are
    /// none or they cannot be read. They are evidence: no verdict hangs on them.
    pub async fn tail(&self, unit: &str, lines: u32) -> Vec<String> {
        let lines = lines.to_string();
        let arguments = ["-u", unit, "-b", "-n", &lines, "-o", "cat", "--no-pager"];
        let program = self.root.path("/usr/bin/journalctl");
        match exec::run(&program, &arguments, Deadline::within(QUESTION)).await {
            Ok(output) => {
                output.stdout.lines().filter(|l| !l.is_empty()).map(str::to_owned).collect()
            }
            Err(error) => {
                tracing::debug!(error = %contract::ErrorChain(&error), unit, "no log of the unit");
                Vec::new()
            }
        }
    }

    async fn systemctl(&self, arguments: &[&str], deadline: Deadline) -> Result<Output, ExecError> {
        exec::run(&self.root.path("/usr/bin/systemctl"), arguments, deadline).await
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn reads_what_show_prints() {
        let state = UnitState::parse(
            "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\n\
             ExecMainStatus=1\nExecMainStartTimestampMonotonic=2500000\nStatusText=a=b\nJob=0\nNRestarts=3\n",
        );
        assert_eq!(state.active, "failed");
        assert_eq!((state.exit_status, state.status.as_str()), (Some(1), "a=b"));
        assert_eq!(state.started, Some(Duration::from_millis(2500)));
        assert_eq!(state.restarts, 3);
        assert!(state.exists() && !state.is_active() && !state.is_pending());

        for (show, exists, pending) in [
            ("LoadState=not-found\nActiveState=inactive\n", false, false),
            ("LoadState=masked\nActiveState=inactive\n", false, false),
            ("LoadState=loaded\nActiveState=inactive\nJob=412\n", true, true),
            ("LoadState=loaded\nActiveState=inactive\nJob=\n", true, false),
            ("LoadState=loaded\nActiveState=activating\n", true, true),
            ("", false, false),
        ] {
            let state = UnitState::parse(show);
            assert_eq!((state.exists(), state.is_pending()), (exists, pending), "{show}");
        }
    }

    #[test]
    fn several_units_come_one_after_the_other() {
        let text =
            "LoadState=loaded\nActiveState=active\n\nLoadState=not-found\nActiveState=inactive\n";
        let states: Vec<UnitState> = text.split("\n\n").map(UnitState::parse).collect();
        assert!(states[0].is_active() && !states[1].exists());
    }

    #[tokio::test]
    async fn runs_the_programs_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        std::fs::create_dir_all(root.path("/usr/bin")).unwrap();
        for (name, script) in [
            ("systemctl", "#!/bin/sh\necho \"StatusText=$*\"\n"),
            ("journalctl", "#!/bin/sh\necho first; echo; echo last\n"),
        ] {
            let path = root.path("/usr/bin").join(name);
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        }
        let systemd = Systemd::new(root);
        let state = systemd.show("kubelet.service").await.unwrap();
        assert_eq!(state.status, format!("show -p {PROPERTIES} kubelet.service"));
        assert_eq!(systemd.tail("kubelet.service", 5).await, ["first", "last"]);
        let [first, second] = systemd.show_all(["a.service", "b.service"]).await.unwrap();
        assert_eq!(first.status, format!("show -p {PROPERTIES} a.service b.service"));
        assert_eq!(second, UnitState::default(), "one that is not answered for");
        let output = systemd.start("x.service", Deadline::within(QUESTION)).await.unwrap();
        assert_eq!(output.stdout, "StatusText=start x.service\n");
    }
}
