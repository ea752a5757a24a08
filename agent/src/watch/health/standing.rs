//! One status of everything that is believed: what the Node condition says.

use contract::offer::Devices;
use serde::{Deserialize, Serialize};

use super::ledger::Fault;
use super::levels::Level;
use super::{BLIND, Health, JoinStanding, Look, Moment};

/// The reason of a condition that is True: eks-node-monitoring-agent's word.
pub const READY_REASON: &str = "NvidiaGPUIsReady";
/// The longest message; longer ones help nobody in a table.
const MESSAGE_MAX: usize = 900;

/// Karpenter 1.15's patterns for `AcceleratedHardwareReady=False` (RepairPolicies of the AWS
/// provider): the first two are acted on after 10 minutes, anything else is replaced after 30.
pub const KARPENTER_REBOOTS: &[u32] =
    &[46, 48, 54, 62, 63, 95, 109, 110, 136, 140, 143, 155, 156, 158];
/// See [`KARPENTER_REBOOTS`].
pub const KARPENTER_REPLACES: &[u32] = &[64, 74, 79, 119, 120];

/// What the condition says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Its status.
    pub status: Status,
    /// Its reason: one word, which repairers match.
    pub reason: String,
    /// Its message.
    pub message: String,
    /// Since when the status is what it is.
    pub since: Moment,
}

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Healthy.
    True,
    /// Not.
    False,
    /// Nobody can know.
    Unknown,
}

impl Status {
    /// As Kubernetes spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// What follows from what is believed; none while that is nothing.
pub(super) fn of(health: &Health, look: &Look<'_>, now: Moment) -> Option<Standing> {
    if health.is_ill() {
        return Some(ill(health, now));
    }
    let before = health.standing.clone();
    if let Some((since, why)) = &health.blind {
        // What was said stands a while: a restart of ours is no news of the GPUs. But a fault that is
        // gone must not stand.
        let stands = before.filter(|before| before.status != Status::False);
        return match stands {
            Some(standing) if now.saturating_sub(*since) < BLIND => Some(standing),
            None if now.saturating_sub(*since) < BLIND => None,
            _ => Some(standing(Status::Unknown, "NotObservable", why, now)),
        };
    }
    Some(match &look.join {
        JoinStanding::Unknown => return before,
        JoinStanding::Joining => {
            standing(Status::Unknown, "JoinUnderWay", "the node is still joining", now)
        }
        JoinStanding::Failed { cause, offered } if offered.is_empty() => {
            let message = format!("the GPUs answer, the join failed: {cause}");
            standing(Status::Unknown, "JoinFailed", &message, now)
        }
        JoinStanding::Failed { offered, .. } => {
            let first = &offered[0];
            let reason = first.reason.known().map_or(first.reason.as_str(), |r| r.node_reason());
            let message = format!("{}: {}", first.reason, first.summary);
            standing(Status::False, reason, &message, now)
        }
        JoinStanding::Ready => {
            standing(Status::True, READY_REASON, &devices(look).to_string(), now)
        }
    })
}

/// The GPUs that answer.
fn devices(look: &Look<'_>) -> Devices {
    let mut devices = Devices::default();
    for gpu in look.gpus.iter().filter(|gpu| gpu.answers) {
        devices.gpus += 1;
        devices.divided += u32::from(gpu.parts.is_some());
        devices.parts += gpu.parts.unwrap_or_default();
    }
    devices
}

fn standing(status: Status, reason: &str, message: &str, since: Moment) -> Standing {
    let mut message = message.to_owned();
    message.truncate(message.floor_char_boundary(MESSAGE_MAX));
    Standing { status, reason: reason.to_owned(), message, since }
}

/// The worst of what is open gives the reason; the message has all of it.
fn ill(health: &Health, now: Moment) -> Standing {
    let faults = health.ledger.open.iter().map(of_fault);
    let levels = health.levels.open().map(of_level);
    let mut open: Vec<(u8, String, String)> = levels.chain(faults).collect();
    open.sort_by_key(|(weight, ..)| std::cmp::Reverse(*weight));
    let reason = open.first().map_or_else(String::new, |(_, reason, _)| reason.clone());
    let said: Vec<String> = open.into_iter().map(|(.., said)| said).collect();
    standing(Status::False, &reason, &said.join("; "), now)
}

fn of_fault(fault: &Fault) -> (u8, String, String) {
    let reason = fault.node_reason();
    let said = format!("{}: {}", contract::Reason::FatalXid, fault.summary());
    (weight(&reason), reason, said)
}

fn of_level(level: &Level) -> (u8, String, String) {
    let finding = &level.finding;
    let reason = match finding.reason.known() {
        Some(known) => known.node_reason().to_owned(),
        None => finding.reason.to_string(),
    };
    (weight(&reason), reason, format!("{}: {}", finding.reason, finding.summary))
}

/// What repairers do about a reason, the most that is asked for first: a machine that must go is not
/// rebooted first.
fn weight(reason: &str) -> u8 {
    match karpenter(reason) {
        Repair::ReplaceSoon => 3,
        // Ours alone: reboots have been tried.
        Repair::Replace if reason.contains("Repeated") => 2,
        Repair::RebootSoon => 1,
        Repair::Replace => 0,
    }
}

/// What Karpenter does about a reason of `AcceleratedHardwareReady=False`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Reboot after 10 minutes.
    RebootSoon,
    /// Replace after 10 minutes.
    ReplaceSoon,
    /// Replace after 30 minutes.
    Replace,
}

/// As Karpenter's patterns match: `.*XID(46|48|…).*`, the first that does.
#[must_use]
pub fn karpenter(reason: &str) -> Repair {
    let matches = |codes: &[u32]| {
        reason.match_indices("XID").any(|(at, word)| {
            let rest = &reason[at + word.len()..];
            codes.iter().any(|code| rest.starts_with(&code.to_string()))
        })
    };
    if matches(KARPENTER_REBOOTS) {
        Repair::RebootSoon
    } else if matches(KARPENTER_REPLACES) {
        Repair::ReplaceSoon
    } else {
        Repair::Replace
    }
}
