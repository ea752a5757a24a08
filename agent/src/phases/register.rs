//! Phase 7: nodeadm's run phase starts kubelet, and the Node object appears under the right name.
//!
//! Nothing before this phase lets kubelet start; nothing in this phase touches one that runs.

use contract::names::{ADMITTED_PATH, UNIT_KUBELET, UNIT_NODEADM_RUN};
use contract::{ErrorChain, Finding, Phase, Reason, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::gate::{CniProven, ConfigurationWritten, DriversProven, Reachable};
use super::nodeadm::{self, Run};
use super::preflight::NODE_PREFIX;
use crate::host::files::{self, FileError};
use crate::host::systemd::{Systemd, UnitState};
use crate::host::{Deadline, Root};
use crate::kube;

/// How many lines of kubelet's log are kept as evidence.
const EVIDENCE_LINES: u32 = 8;

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

/// What the phase found.
#[derive(Debug)]
pub struct Facts {
    /// How nodeadm's run phase went; `None` when kubelet already ran.
    pub run: Option<Run>,
    /// kubelet's unit.
    pub kubelet: UnitState,
    /// The end of kubelet's log, read only when the Node is not there.
    pub log: Vec<String>,
    /// The Node object under the expected name, or why it cannot be read.
    pub node: Result<Option<Value>, String>,
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
    files::write_atomic(&path, text.as_bytes(), 0o644)
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

/// Runs nodeadm's run phase, which starts kubelet.
pub async fn start(systemd: &Systemd, deadline: Deadline) -> Run {
    nodeadm::run(systemd, UNIT_NODEADM_RUN, deadline).await
}

/// Looks for the Node object.
pub async fn gather(
    systemd: &Systemd,
    kube: &kube::Client,
    name: &str,
    run: Option<Run>,
    deadline: Deadline,
) -> Facts {
    let node = kube.node(name, deadline).await.map_err(|error| ErrorChain(&error).to_string());
    let (kubelet, log) = match &node {
        Ok(Some(_)) => (UnitState::default(), Vec::new()),
        _ => (
            systemd.show(UNIT_KUBELET).await.unwrap_or_default(),
            systemd.tail(UNIT_KUBELET, EVIDENCE_LINES).await,
        ),
    };
    Facts { run, kubelet, log, node }
}

/// Whether the node is in the cluster. A Node object of an earlier boot does not count.
#[must_use]
pub fn verdict(facts: &Facts, name: &str, boot: &str) -> Verdict {
    let failed = facts
        .run
        .as_ref()
        .and_then(|run| nodeadm::finding(run, "run", Phase::Register, Reason::NodeadmRunFailed));
    if let Some(finding) = failed {
        return Verdict::Fail(vec![finding]);
    }
    let summary = match &facts.node {
        Ok(Some(node)) => match stale_boot(node, boot) {
            None => return Verdict::Pass,
            Some(other) => format!("the Node object `{name}` is of the boot {other}"),
        },
        Ok(None) => format!("no Node object `{name}`; kubelet is {}", word(&facts.kubelet)),
        Err(why) => format!("the Node object `{name}` cannot be read: {why}"),
    };
    let finding = Finding::new(Reason::NodeNotRegistered, Phase::Register, summary);
    let finding = facts.log.iter().fold(finding, |f, line| f.with_evidence(line.clone()));
    Verdict::Wait(Box::new(finding))
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
        Facts { run: None, kubelet, log: vec!["E1120 refused".into()], node }
    }

    fn waits_for(facts: &Facts) -> Finding {
        match verdict(facts, "n1", "boot-2") {
            Verdict::Wait(finding) => *finding,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_node_object_must_be_of_this_boot() {
        let of = |boot: &str| json!({"status": {"nodeInfo": {"bootID": boot}}});
        assert_eq!(verdict(&facts(Ok(Some(of("boot-2")))), "n1", "boot-2"), Verdict::Pass);
        assert_eq!(verdict(&facts(Ok(Some(json!({})))), "n1", "boot-2"), Verdict::Pass);
        let old = waits_for(&facts(Ok(Some(of("boot-1")))));
        assert!(old.summary.contains("boot-1"), "{}", old.summary);
        let absent = waits_for(&facts(Ok(None)));
        assert_eq!(absent.reason, Reason::NodeNotRegistered);
        assert_eq!(absent.summary, "no Node object `n1`; kubelet is activating");
        assert_eq!(absent.evidence, ["E1120 refused"]);
        assert!(waits_for(&facts(Err("403".into()))).summary.contains("403"));
    }

    #[test]
    fn a_failed_run_phase_fails_at_once() {
        let end = End::Failed { result: "exit-code".into(), status: Some(1) };
        let facts = Facts { run: Some(Run { end, log: vec![] }), ..facts(Ok(None)) };
        assert!(matches!(verdict(&facts, "n1", "b"), Verdict::Fail(found)
            if found[0].reason == Reason::NodeadmRunFailed));
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
