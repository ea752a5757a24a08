//! What befalls a node that has joined, and where it must be heard: the Node's condition, events on it, the
//! watch's metrics.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use contract::Reason;
use serde_json::Value;
use tokio::time::sleep;

use super::act::{AGAIN, POLL};
use super::observe::Node;
use crate::faults::Fault;

/// What lasts a minute before it is said has its time.
const EVENT: Duration = Duration::from_secs(180);

/// Until the condition says so; then the fault is lifted, until it does not.
pub(super) async fn ill(node: &Node<'_>, reason: Reason, fault: &Fault) -> Result<(), String> {
    falls(node, reason, fault).await?;
    lift(node, fault).await?;
    well(node).await
}

/// The same, and both of the agent's units are restarted while it is there.
pub(super) async fn restarts(node: &Node<'_>, reason: Reason, fault: &Fault) -> Result<(), String> {
    let said = |error: anyhow::Error| format!("{error:#}");
    well(node).await?;
    let gpus = node.gpus_served().await.map_err(said)?;
    lay(node, fault).await?;
    let before = stands(node, "False", reason.name()).await?;
    // The watch last: what it has sampled goes with it.
    for unit in [contract::names::UNIT_JOIN, contract::names::UNIT_WATCH] {
        let served = node.gpus_served().await.map_err(said)?;
        if served != gpus {
            return Err(format!("{served} of {gpus} GPUs are in the metrics"));
        }
        node.restart(unit).await.map_err(said)?;
    }
    let after = stands(node, "False", reason.name()).await?;
    let since = |condition: &Value| condition["lastTransitionTime"].clone();
    if since(&before) != since(&after) {
        return Err(format!("the restart has moved the condition: {before} became {after}"));
    }
    lift(node, fault).await?;
    well(node).await
}

/// Until the condition says so.
pub(super) async fn falls(node: &Node<'_>, reason: Reason, fault: &Fault) -> Result<(), String> {
    well(node).await?;
    lay(node, fault).await?;
    stands(node, "False", reason.name()).await.map(drop)
}

/// Until the condition is True.
pub(super) async fn well(node: &Node<'_>) -> Result<(), String> {
    stands(node, "True", "").await.map(drop)
}

/// Until an event names the reason and, where it `ends`, another says that it is over. The condition is True
/// all the while.
pub(super) async fn event(
    node: &Node<'_>,
    reason: Reason,
    fault: &Fault,
    ends: bool,
) -> Result<(), String> {
    well(node).await?;
    let mut before = names(&node.events().await);
    lay(node, fault).await?;
    before.extend(until_told(node, reason, "Warning", &before).await?);
    if ends {
        lift(node, fault).await?;
        until_told(node, reason, "Normal", &before).await?;
    }
    Ok(())
}

/// Until a value of the family is another one; nothing else is said of it.
pub(super) async fn metric(node: &Node<'_>, family: &str, fault: &Fault) -> Result<(), String> {
    well(node).await?;
    let before = values(node, family).await?;
    if before.is_empty() {
        return Err(format!("the node's metrics have no {family}"));
    }
    lay(node, fault).await?;
    let deadline = Instant::now() + AGAIN;
    while values(node, family).await? == before {
        if Instant::now() >= deadline {
            return Err(format!("{family} stays {before:?}"));
        }
        sleep(POLL).await;
    }
    lift(node, fault).await?;
    well(node).await
}

async fn lay(node: &Node<'_>, fault: &Fault) -> Result<(), String> {
    let laid = node.stage.fault(node.case, &fault.to_string()).await;
    laid.map_err(|error| format!("{error:#}"))
}

/// What has happened cannot be taken back; it is over by itself.
async fn lift(node: &Node<'_>, fault: &Fault) -> Result<(), String> {
    if matches!(fault, Fault::Happening(_)) {
        return Ok(());
    }
    let lifted = node.stage.lift(node.case, &fault.to_string()).await;
    lifted.map_err(|error| format!("{error:#}"))
}

/// Waits until the Node's condition about its GPUs has this status and names the reason.
async fn stands(node: &Node<'_>, status: &str, reason: &str) -> Result<Value, String> {
    let deadline = Instant::now() + AGAIN.max(Duration::from_secs(node.case.within));
    loop {
        let condition = node.gpu_condition().await.unwrap_or_default();
        let names = condition["message"].as_str().is_some_and(|text| text.contains(reason));
        if condition["status"] == status && names {
            return Ok(condition);
        }
        if Instant::now() >= deadline {
            return Err(format!("the condition is not {status} for {reason}: {condition}"));
        }
        sleep(POLL).await;
    }
}

/// Waits for an event of this reason and type that was not there `before`; the names of all that are there
/// then. The condition must be True meanwhile.
async fn until_told(
    node: &Node<'_>,
    reason: Reason,
    kind: &str,
    before: &BTreeSet<String>,
) -> Result<BTreeSet<String>, String> {
    let deadline = Instant::now() + EVENT;
    loop {
        let events = node.events().await;
        let is_it = |event: &&Value| {
            event["reason"] == reason.name()
                && event["type"] == kind
                && event["metadata"]["name"].as_str().is_some_and(|name| !before.contains(name))
        };
        if events.iter().any(|event| is_it(&event)) {
            return Ok(names(&events));
        }
        let condition = node.gpu_condition().await.unwrap_or_default();
        if condition["status"] != "True" {
            return Err(format!("{reason} is worth an event, and the condition says {condition}"));
        }
        if Instant::now() >= deadline {
            let seen: Vec<String> = events
                .iter()
                .map(|event| format!("{} {}: {}", event["type"], event["reason"], event["message"]))
                .collect();
            return Err(format!("no {kind} event says {reason}: {}", seen.join(", ")));
        }
        sleep(POLL).await;
    }
}

fn names(events: &[Value]) -> BTreeSet<String> {
    let names = events.iter().filter_map(|event| event["metadata"]["name"].as_str());
    names.map(str::to_owned).collect()
}

/// A family's lines, each with its labels.
async fn values(node: &Node<'_>, family: &str) -> Result<Vec<String>, String> {
    let text = node.metrics().await.map_err(|error| format!("{error:#}"))?;
    let is_of =
        |line: &&str| line.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', ' ']));
    Ok(text.lines().filter(is_of).map(str::to_owned).collect())
}
