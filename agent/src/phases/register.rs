//! Phase 7: nodeadm's run phase starts kubelet, and the Node object appears under the right name.
//!
//! Nothing before this phase lets kubelet start; nothing in this phase touches one that runs.
//! nodeadm waits for containerd and kubelet without a limit: it runs beside the looking, so that
//! what keeps them down is named at once.

mod units;

use std::time::Duration;

use contract::names::{ADMITTED_PATH, UNIT_KUBELET, UNIT_NODEADM_RUN};
use contract::{ErrorChain, Finding, Phase, Reason, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::units::Cause;
use super::gate::{CniProven, ConfigurationWritten, DriversProven, Reachable};
use super::nodeadm::{self, Run};
use super::preflight::NODE_PREFIX;
use crate::host::files::{self, FileError};
use crate::host::systemd::{Systemd, UnitState};
use crate::host::{Deadline, Root};
use crate::kube;

/// How many lines of kubelet's log are read.
pub const LOG_LINES: u32 = 40;

/// How long a look waits for nodeadm's run phase to end: on a healthy node it ends within this.
const LOOK: Duration = Duration::from_secs(1);

/// How long kubelet may take before its log is read, unless its unit is in trouble.
const QUIET: Duration = Duration::from_secs(4);

/// containerd, which nodeadm starts before kubelet.
pub const CONTAINERD: &str = "containerd.service";

/// What every gate before kubelet hands out. There is no other way to [`admit`].
#[derive(Debug)]
pub struct Proofs {
    /// The GPUs work.
    pub drivers: DriversProven,
    /// The API server is reached and knows us.
    pub reachable: Reachable,
    /// The configuration is on disk.
    pub written: ConfigurationWritten,
    /// Networking will come up.
    pub cni: CniProven,
}

/// What stands in `admitted`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The boot it is for.
    pub boot: String,
    /// The proving that led to it.
    pub attempt: u32,
}

/// How far nodeadm's run phase is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is not needed: kubelet runs already.
    NotNeeded,
    /// It is at work.
    Running,
    /// It has ended.
    Ended(Run),
}

/// What the phase found.
#[derive(Debug)]
pub struct Facts {
    /// How far nodeadm's run phase is.
    pub run: Progress,
    /// containerd's unit; asked for, as what follows, only when the Node is not there.
    pub containerd: UnitState,
    /// kubelet's unit.
    pub kubelet: UnitState,
    /// The end of kubelet's log.
    pub log: Vec<String>,
    /// The Node object under the expected name, or why it cannot be read.
    pub node: Result<Option<Value>, String>,
}

/// nodeadm's run phase, which starts kubelet. Dropped, it goes on without being waited for.
#[derive(Debug)]
pub struct Starting {
    task: Option<JoinHandle<Run>>,
    progress: Progress,
}

impl Starting {
    /// Nothing to start: kubelet runs.
    #[must_use]
    pub const fn not_needed() -> Self {
        Self { task: None, progress: Progress::NotNeeded }
    }

    /// Starts it.
    #[must_use]
    pub fn begin(systemd: &Systemd, deadline: Deadline) -> Self {
        let systemd = systemd.clone();
        let never = std::future::pending();
        let run = async move { nodeadm::run(&systemd, UNIT_NODEADM_RUN, deadline, never).await };
        Self { task: Some(tokio::spawn(run)), progress: Progress::Running }
    }

    /// How far it is, after a moment in which it may end.
    pub async fn progress(&mut self) -> Progress {
        if let Some(task) = &mut self.task
            && let Ok(ended) = timeout(LOOK, task).await
        {
            self.task = None;
            let run = ended.unwrap_or_else(|error| Run {
                end: nodeadm::End::NotStarted(error.to_string()),
                log: Vec::new(),
            });
            self.progress = Progress::Ended(run);
        }
        self.progress.clone()
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Opens kubelet's assertion for this boot.
///
/// # Errors
/// When the file cannot be written.
pub fn admit(root: &Root, _proofs: &Proofs, admission: &Admission) -> Result<(), FileError> {
    let path = root.path(ADMITTED_PATH);
    if let Some(directory) = path.parent() {
        files::make_dir(directory, 0o755)?;
    }
    let text = serde_json::to_string(admission).unwrap_or_default();
    files::write_for_this_boot(&path, text.as_bytes(), 0o644)
}

/// Whether the node has been admitted in this boot. The stock fallback writes a file without our
/// content: it counts, since it lies in `/run`.
#[must_use]
pub fn is_admitted(root: &Root, boot: &str) -> bool {
    match files::read(&root.path(ADMITTED_PATH)) {
        Ok(bytes) => serde_json::from_slice::<Admission>(&bytes)
            .map_or(true, |admission| admission.boot == boot),
        Err(_) => false,
    }
}

/// Whether kubelet would be refused under the name it has been given.
#[must_use]
pub fn name_finding(username: Option<&str>, kubelet_name: Option<&str>) -> Option<Finding> {
    let known = username?.strip_prefix(NODE_PREFIX)?;
    let given = kubelet_name?;
    (known != given).then(|| {
        let summary = format!(
            "kubelet would register as `{given}`, and the API server knows this node as `{known}`"
        );
        Finding::new(Reason::NodeNameMismatch, Phase::Register, summary)
    })
}

/// Looks for the Node object and, while there is none, for what keeps it away; `elapsed` is how
/// long the phase has looked.
pub async fn gather(
    systemd: &Systemd,
    kube: &kube::Client,
    name: &str,
    run: Progress,
    elapsed: Duration,
    deadline: Deadline,
) -> Facts {
    let node = kube.node(name, deadline).await.map_err(|error| ErrorChain(&error).to_string());
    let (mut containerd, mut kubelet, mut log) = Default::default();
    if !matches!(node, Ok(Some(_))) {
        let shown = tokio::join!(systemd.show(CONTAINERD), systemd.show(UNIT_KUBELET));
        (containerd, kubelet) = (shown.0.unwrap_or_default(), shown.1.unwrap_or_default());
        let is_quiet = kubelet.restarts == 0 && kubelet.active != "failed" && elapsed < QUIET;
        if !is_quiet {
            log = systemd.tail(UNIT_KUBELET, LOG_LINES).await;
        }
    }
    Facts { run, containerd, kubelet, log, node }
}

/// Whether the node is in the cluster. A Node object of an earlier boot does not count.
#[must_use]
pub fn verdict(facts: &Facts, name: &str, boot: &str, elapsed: Duration) -> Verdict {
    let stale = match &facts.node {
        Ok(Some(node)) => match stale_boot(node, boot) {
            None => return Verdict::Pass,
            stale => stale,
        },
        _ => None,
    };
    let failed = match &facts.run {
        Progress::Ended(run) => {
            nodeadm::finding(run, "run", Phase::Register, Reason::NodeadmRunFailed)
        }
        Progress::NotNeeded | Progress::Running => None,
    };
    let cause = units::cause(&facts.containerd, &facts.kubelet, &facts.log, elapsed);
    match (failed, cause) {
        // What keeps a unit down outranks that nodeadm has given it up.
        (Some(failed), Some(Cause::Final(cause) | Cause::MayHeal(cause))) => {
            let mut findings = vec![cause];
            if !findings[0].reason.known().is_some_and(is_of_units) {
                findings.push(failed);
            }
            Verdict::Fail(findings)
        }
        (Some(failed), None) => Verdict::Fail(vec![failed]),
        (None, Some(Cause::Final(cause))) => Verdict::Fail(vec![cause]),
        (None, Some(Cause::MayHeal(cause))) => Verdict::Wait(Box::new(cause)),
        (None, None) => Verdict::Wait(Box::new(absent(facts, name, stale))),
    }
}

/// Whether a reason says why nodeadm's run phase did not end.
const fn is_of_units(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ContainerdNotActive
            | Reason::KubeletCrashLoop
            | Reason::KubeletConfigRejected
            | Reason::KubeletCredentialPluginMissing
    )
}

/// No Node, and nothing that says why.
fn absent(facts: &Facts, name: &str, stale: Option<&str>) -> Finding {
    let summary = match (&facts.node, stale) {
        (_, Some(boot)) => format!("the Node object `{name}` is of the boot {boot}"),
        (Err(why), None) => format!("the Node object `{name}` cannot be read: {why}"),
        (Ok(_), None) if facts.run == Progress::Running && !facts.containerd.is_active() => {
            let what = "nodeadm's run phase is at work and has not started containerd yet";
            return Finding::new(Reason::NodeadmTimedOut, Phase::Register, what);
        }
        (Ok(_), None) => format!("no Node object `{name}`; kubelet is {}", word(&facts.kubelet)),
    };
    let finding = Finding::new(Reason::NodeNotRegistered, Phase::Register, summary);
    facts
        .log
        .iter()
        .rev()
        .take(units::EVIDENCE)
        .rev()
        .fold(finding, |finding, line| finding.with_evidence(line.clone()))
}

fn stale_boot<'a>(node: &'a Value, boot: &str) -> Option<&'a str> {
    let of = node.pointer("/status/nodeInfo/bootID").and_then(Value::as_str)?;
    (!of.is_empty() && !boot.is_empty() && of != boot).then_some(of)
}

fn word(unit: &UnitState) -> &str {
    if unit.active.is_empty() { "of unknown state" } else { &unit.active }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::phases::nodeadm::End;

    fn facts(node: Result<Option<Value>, String>) -> Facts {
        let kubelet = UnitState { active: "activating".into(), ..UnitState::default() };
        let containerd = UnitState { active: "active".into(), ..UnitState::default() };
        let log = vec!["E1120 refused".into()];
        Facts { run: Progress::NotNeeded, containerd, kubelet, log, node }
    }

    fn judge(facts: &Facts) -> Verdict {
        verdict(facts, "n1", "boot-2", Duration::from_secs(5))
    }

    fn waits_for(facts: &Facts) -> Finding {
        match judge(facts) {
            Verdict::Wait(finding) => *finding,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_node_object_must_be_of_this_boot() {
        let of = |boot: &str| json!({"status": {"nodeInfo": {"bootID": boot}}});
        assert_eq!(judge(&facts(Ok(Some(of("boot-2"))))), Verdict::Pass);
        assert_eq!(judge(&facts(Ok(Some(json!({}))))), Verdict::Pass);
        let old = waits_for(&facts(Ok(Some(of("boot-1")))));
        assert!(old.summary.contains("boot-1"), "{}", old.summary);
        let absent = waits_for(&facts(Ok(None)));
        assert_eq!(absent.reason, Reason::NodeNotRegistered);
        assert_eq!(absent.summary, "no Node object `n1`; kubelet is activating");
        assert_eq!(absent.evidence, ["E1120 refused"]);
        assert!(waits_for(&facts(Err("403".into()))).summary.contains("403"));
    }

    #[test]
    fn a_failed_run_phase_fails_at_once_and_a_unit_that_is_down_says_why() {
        let failed = || {
            let end = End::Failed { result: "exit-code".into(), status: Some(1) };
            Progress::Ended(Run { end, log: vec![] })
        };
        let reasons = |facts: &Facts| match judge(facts) {
            Verdict::Fail(found) => found.iter().map(|f| f.reason.to_string()).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        let plain = Facts { run: failed(), ..facts(Ok(None)) };
        assert_eq!(reasons(&plain), ["NodeadmRunFailed"]);
        let containerd = UnitState { active: "failed".into(), ..UnitState::default() };
        let down = Facts { containerd, ..plain };
        assert_eq!(reasons(&down), ["ContainerdNotActive"]);
        let early = Facts { run: Progress::Running, ..down };
        assert_eq!(reasons(&early), ["ContainerdNotActive"], "nodeadm is not waited for");
        let joined = Facts { node: Ok(Some(json!({}))), ..early };
        assert_eq!(judge(&joined), Verdict::Pass, "the Node is there");
    }

    #[test]
    fn a_run_phase_that_does_not_get_to_containerd_is_named() {
        let idle = UnitState { active: "inactive".into(), ..UnitState::default() };
        let facts = Facts {
            run: Progress::Running,
            containerd: idle.clone(),
            kubelet: idle,
            ..facts(Ok(None))
        };
        assert_eq!(waits_for(&facts).reason, Reason::NodeadmTimedOut);
    }

    #[tokio::test]
    async fn nodeadm_runs_beside_the_looking() {
        let dir = tempfile::tempdir().unwrap();
        let deadline = Deadline::within(Duration::from_secs(20));
        // No systemctl there: it ends at once, and says so.
        let mut starting = Starting::begin(&Systemd::new(Root::new(dir.path())), deadline);
        let Progress::Ended(run) = starting.progress().await else { panic!() };
        assert!(matches!(run.end, End::NotStarted(_)), "{run:?}");
        assert_eq!(starting.progress().await, Progress::Ended(run));
        assert_eq!(Starting::not_needed().progress().await, Progress::NotNeeded);
    }

    #[test]
    fn a_name_that_would_be_refused_is_seen_before() {
        let user = Some("system:node:ip-10-0-1-7.ec2.internal");
        assert_eq!(name_finding(user, Some("ip-10-0-1-7.ec2.internal")), None);
        assert_eq!(name_finding(None, Some("n1")), None);
        assert_eq!(name_finding(user, None), None);
        let found = name_finding(user, Some("worker-7")).unwrap();
        assert_eq!(found.reason, Reason::NodeNameMismatch);
        assert!(found.summary.contains("`worker-7`"));
    }

    #[test]
    fn an_admission_is_for_one_boot() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let proofs = Proofs::for_tests();
        assert!(!is_admitted(&root, "boot-1"));
        admit(&root, &proofs, &Admission { boot: "boot-1".into(), attempt: 1 }).unwrap();
        assert!(is_admitted(&root, "boot-1"));
        assert!(!is_admitted(&root, "boot-2"));
        std::fs::write(root.path(ADMITTED_PATH), "").unwrap();
        assert!(is_admitted(&root, "boot-2"), "the fallback's file");
    }
}
