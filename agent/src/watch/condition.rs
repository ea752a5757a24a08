//! The Node condition `AcceleratedHardwareReady`: what it should say (pure), and saying it.
//!
//! Level-triggered: it follows from the join's report and the last samples alone, so a restart
//! forgets nothing and a fault that is gone is gone. The API server is asked only when there is
//! something to write, or a heartbeat is due. Its transition time moves only when the status does,
//! because that is what the repairers measure.

use std::sync::Arc;
use std::time::Duration;

use contract::join_report::{JoinOutcome, PhaseState};
use contract::{ErrorChain, Finding, JoinReport, Phase, Reason, Verdict, names};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::sampler::Observed;
use crate::aws::{Imds, RoleCredentials};
use crate::host::{Deadline, Root};
use crate::kube::{Client, Condition, KubeError};
use crate::phases::drivers;

/// The reason of a condition that is True: eks-node-monitoring-agent's word.
const READY_REASON: &str = "NvidiaGPUIsReady";
/// How often an unchanged condition is confirmed.
const HEARTBEAT: Duration = Duration::from_secs(300);
/// How long one exchange with the API server may take.
const EXCHANGE: Duration = Duration::from_secs(15);
/// Between two tries, the first and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// The longest message; longer ones help nobody in a table.
const MESSAGE_MAX: usize = 900;

/// What the condition should say.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Desired {
    status: &'static str,
    reason: String,
    message: String,
}

/// What follows from what is known; none on a node without GPUs, and while no join is known.
fn desired(observed: &Observed) -> Option<Desired> {
    let report = observed.snapshot.join.as_ref()?;
    let expected = observed.expected.as_ref()?;
    if drivers::skipped(expected).is_some() {
        return None;
    }
    let Some(facts) = &observed.facts else {
        return Some(unknown("NotSampled", "the GPUs have not been sampled yet"));
    };
    Some(match drivers::verdict(facts, expected) {
        Verdict::Fail(findings) => refused(&findings),
        Verdict::Wait(finding) => refused(&[*finding]),
        Verdict::Pass | Verdict::Degraded(_) => joined(report, observed),
    })
}

/// The GPUs are whole now: what does the join say?
fn joined(report: &JoinReport, observed: &Observed) -> Desired {
    let of_gpus: Vec<Finding> =
        report.reasons.iter().filter(|finding| is_of_gpus(finding)).cloned().collect();
    match report.outcome {
        JoinOutcome::Ready => {
            let working = observed.snapshot.gpus.iter().filter(|gpu| gpu.trouble.is_none()).count();
            Desired {
                status: "True",
                reason: READY_REASON.into(),
                message: format!("{working} GPUs are proven and answer"),
            }
        }
        JoinOutcome::Joining => unknown("JoinUnderWay", "the node is still joining"),
        // The drivers phase found what is not there any more; its next proving says so too.
        JoinOutcome::Failed if of_gpus.is_empty() => {
            let cause = report.cause().map(|finding| finding.reason.to_string());
            let cause = cause.unwrap_or_else(|| "an unnamed cause".into());
            unknown("JoinFailed", &format!("the GPUs answer, the join failed: {cause}"))
        }
        JoinOutcome::Failed => refused(&of_gpus),
    }
}

/// Whether the join refused for GPUs in a way that the watch cannot see itself: what kubelet offers.
fn is_of_gpus(finding: &Finding) -> bool {
    finding.reason == Reason::GpuAllocatableShort
}

fn refused(findings: &[Finding]) -> Desired {
    let reason = findings.first().and_then(|finding| finding.reason.known());
    let reason = match (reason, findings.first()) {
        (Some(known), _) => known.node_reason().to_owned(),
        (None, Some(finding)) => finding.reason.to_string(),
        (None, None) => "Unnamed".to_owned(),
    };
    let said = findings.iter().map(|finding| format!("{}: {}", finding.reason, finding.summary));
    let mut message = said.collect::<Vec<_>>().join("; ");
    message.truncate(message.floor_char_boundary(MESSAGE_MAX));
    Desired { status: "False", reason, message }
}

fn unknown(reason: &str, message: &str) -> Desired {
    Desired { status: "Unknown", reason: reason.into(), message: message.into() }
}

/// What has to be written, given what the Node has; none when it says so already and has been
/// confirmed lately.
fn plan(existing: Option<&Condition>, desired: &Desired, now: Timestamp) -> Option<Condition> {
    let spelled = spell(now);
    let same = |condition: &Condition| {
        condition.status == desired.status
            && condition.reason == desired.reason
            && condition.message == desired.message
    };
    let confirmed = |condition: &Condition| {
        let at = condition.last_heartbeat_time.as_deref().and_then(|text| text.parse().ok());
        at.is_some_and(|at: Timestamp| {
            Duration::try_from(now.duration_since(at)).is_ok_and(|age| age < HEARTBEAT)
        })
    };
    if existing.is_some_and(|condition| same(condition) && confirmed(condition)) {
        return None;
    }
    let since = existing
        .filter(|condition| condition.status == desired.status)
        .and_then(|condition| condition.last_transition_time.clone());
    Some(Condition {
        kind: names::CONDITION_ACCELERATED_HARDWARE.into(),
        status: desired.status.into(),
        reason: desired.reason.clone(),
        message: desired.message.clone(),
        last_heartbeat_time: Some(spelled.clone()),
        last_transition_time: Some(since.unwrap_or(spelled)),
    })
}

/// Kubernetes takes no fractions of a second.
fn spell(at: Timestamp) -> String {
    format!("{at:.0}")
}

/// Keeps the condition until the sampler is gone.
pub(super) async fn run(root: Root, mut latest: watch::Receiver<Arc<Observed>>) {
    let mut writer = Writer { root, client: None, written: None, refused: None };
    loop {
        let observed = Arc::clone(&latest.borrow_and_update());
        if is_registered(&observed)
            && let Some(desired) = desired(&observed)
        {
            writer.keep(&observed.snapshot.hostname, desired).await;
        }
        if latest.changed().await.is_err() {
            return;
        }
    }
}

/// Whether there is a Node to say it on: the join has seen it.
fn is_registered(observed: &Observed) -> bool {
    let phases = observed.snapshot.join.iter().flat_map(|report| &report.phases);
    let passed = |state| matches!(state, PhaseState::Passed | PhaseState::Degraded);
    !observed.snapshot.hostname.is_empty()
        && phases.into_iter().any(|one| one.phase == Phase::Register && passed(one.state))
}

struct Writer {
    root: Root,
    client: Option<Client>,
    /// What the Node has been known to say, and since when.
    written: Option<(Desired, Instant)>,
    /// What could not be written, when to try again, and how long to wait after that.
    refused: Option<(Desired, Instant, Duration)>,
}

impl Writer {
    /// Makes the Node say it, if it does not. Something new to say is tried at once; the same again
    /// only after a wait.
    async fn keep(&mut self, node: &str, desired: Desired) {
        let fresh = |(said, at): &(Desired, Instant)| *said == desired && at.elapsed() < HEARTBEAT;
        if self.written.as_ref().is_some_and(fresh) {
            return;
        }
        let wait = match &self.refused {
            Some((said, until, _)) if *said == desired && Instant::now() < *until => return,
            Some((said, _, wait)) if *said == desired => (*wait * 2).min(RETRY.1),
            _ => RETRY.0,
        };
        match self.write(node, &desired).await {
            Ok(change) => {
                if let Some(changed) = change {
                    let Desired { status, reason, .. } = &desired;
                    tracing::info!(status, reason, changed, "node condition written");
                }
                self.refused = None;
                self.written = Some((desired, Instant::now()));
            }
            Err(error) => {
                tracing::debug!(error = %ErrorChain(&error), "the node condition waits");
                // The next try starts with a client of its own: the cluster's CA may have changed.
                self.client = None;
                self.refused = Some((desired, Instant::now() + wait, wait));
            }
        }
    }

    /// Whether it was written, and then whether the status changed.
    async fn write(&mut self, node: &str, desired: &Desired) -> Result<Option<bool>, KubeError> {
        let deadline = Deadline::within(EXCHANGE);
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let credentials = RoleCredentials::new(Arc::new(Imds::from_env()));
                Client::from_kubeconfig(&self.root, credentials)?
            }
        };
        let client = &*self.client.insert(client);
        let object = client.node(node, deadline).await?;
        let Some(object) = object else {
            return Err(KubeError::NotFound(format!("node `{node}` is not registered yet")));
        };
        let existing = existing(&object);
        let Some(condition) = plan(existing.as_ref(), desired, Timestamp::now()) else {
            return Ok(None);
        };
        client.set_node_condition(node, &condition, deadline).await?;
        Ok(Some(existing.is_none_or(|existing| existing.status != condition.status)))
    }
}

fn existing(node: &serde_json::Value) -> Option<Condition> {
    let conditions = node["status"]["conditions"].as_array()?;
    let ours =
        conditions.iter().find(|one| one["type"] == names::CONDITION_ACCELERATED_HARDWARE)?;
    serde_json::from_value(ours.clone()).ok()
}

#[cfg(test)]
mod tests;
