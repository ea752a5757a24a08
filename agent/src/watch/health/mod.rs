//! Is the node's accelerated hardware healthy? Pure: (what was believed, what is seen, the time) gives
//! (what is believed, what to do).
//!
//! Three kinds of evidence. What the catalogue finds in a round of samples stands as long as it is
//! found: [`levels`]. What means something only over many rounds, [`trends`] finds for them. What the
//! driver logs is said once: [`ledger`] keeps it open until the driver shows that it is over. [`standing`]
//! makes one status of all.
//!
//! Nothing here is true because we have just started: what is believed is kept through restarts of
//! the watch, and what cannot be seen any more is `Unknown`, after a while, and never healthy.

pub mod history;
pub mod ledger;
pub mod levels;
#[cfg(test)]
mod node_days;
pub mod standing;
#[cfg(test)]
mod tests;
pub mod trends;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use contract::agent_config::{GpuReset, Show};
use contract::{Finding, ReasonName};
use serde::{Deserialize, Serialize};

use self::history::History;
use self::ledger::Ledger;
use self::levels::Levels;
pub use self::standing::{Standing, Status};
use self::trends::Trends;
use crate::gpu::checks::over_time::Signs;
use crate::gpu::log_line::LogLine;
use crate::gpu::xid::{Record, Table};

/// A time since the boot: it goes on through restarts of the watch.
pub type Moment = Duration;

/// How long we may be unable to see before we say so.
const BLIND: Duration = Duration::from_secs(30);

/// How many rounds must agree before a finding, or its end, is believed: one may be an accident.
const ROUNDS: u32 = 2;

/// How often a boot's GPU may be reset by us, and how far apart.
const RESETS: (u32, Duration) = (2, Duration::from_secs(1800));

/// What is believed of the node. Kept in the watch's run directory, so that it ends with the boot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Health {
    /// What rounds of samples have found.
    pub levels: Levels,
    /// What they show over time.
    pub trends: Trends,
    /// What the driver has logged.
    pub ledger: Ledger,
    /// Since when we cannot see, and why.
    pub blind: Option<(Moment, String)>,
    /// What the node's condition says, once it says something.
    pub standing: Option<Standing>,
    /// Resets that were asked for: when the last was, and how many, by PCI address.
    pub resets: BTreeMap<String, (Moment, u32)>,
    /// What of the join has been told as an event.
    pub told: BTreeSet<String>,
}

/// What is seen.
#[derive(Clone, Debug, Default)]
pub struct Look<'a> {
    /// Whether the samples are new since the last look.
    pub is_round: bool,
    /// Whether the driver has answered for every GPU in them.
    pub is_complete: bool,
    /// Whether the driver is not there to be asked: it is being loaded anew.
    pub is_unloaded: bool,
    /// What the catalogue finds in them.
    pub findings: &'a [Finding],
    /// What they show that means something only over time.
    pub signs: Option<&'a Signs>,
    /// Why we cannot see, when we cannot.
    pub blind: Option<String>,
    /// The GPUs.
    pub gpus: &'a [GpuLook],
    /// What the driver has logged since the last look.
    pub xids: &'a [Seen],
    /// What else the kernel has logged.
    pub lines: &'a [Logged],
    /// How the join stands.
    pub join: JoinStanding,
}

/// One GPU as it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuLook {
    /// PCI address.
    pub pci: String,
    /// UUID; empty when it does not say.
    pub uuid: String,
    /// Whether it answers without an error.
    pub answers: bool,
    /// The MIG devices that it is divided into; none where it is whole.
    pub parts: Option<u32>,
    /// The recovery action that the driver asks for, field 230; none where it knows of none.
    pub recovery: Option<u64>,
}

/// An XID as it was logged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What the driver said.
    pub record: Record,
    /// Whose process it is charged to, `pod 1f3c… (python3, pid 4242)`.
    pub process: Option<String>,
    /// The pod of that process, by its UID.
    pub pod: Option<String>,
    /// When, as a person reads it; empty when that is not known.
    pub when: String,
}

/// A line of the kernel's log that is no XID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// What it says.
    pub line: LogLine,
    /// Whose process it is about, as in [`Seen::process`].
    pub process: Option<String>,
}

/// How the join stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum JoinStanding {
    /// There is no report yet.
    #[default]
    Unknown,
    /// It is under way.
    Joining,
    /// The node was Ready.
    Ready,
    /// It failed; with what the GPUs have to do with it that samples cannot show.
    Failed {
        /// The cause.
        cause: String,
        /// What kubelet offers, when that is short.
        offered: Vec<Finding>,
    },
}

/// What was decided beforehand.
#[derive(Debug, Default)]
pub struct Rules {
    /// What XIDs mean.
    pub xids: Table,
    /// Where reasons are shown, when not where their weight says.
    pub show: BTreeMap<ReasonName, Show>,
    /// Whether GPUs may be reset.
    pub reset: GpuReset,
    /// What was in earlier boots.
    pub history: History,
}

impl Rules {
    /// Whether a reason makes the condition False.
    fn counts(&self, reason: &ReasonName) -> bool {
        match self.show.get(reason) {
            Some(Show::Condition) => true,
            Some(Show::Event) => false,
            None => reason.is_hard(),
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Say it as an event on the Node.
    Tell(Notice),
    /// Sample the GPUs now.
    LookAgain,
    /// Sample them in a moment: what this round was the first to show, the next has to confirm.
    LookSoon,
    /// Keep it for the boots to come.
    Remember {
        /// What: a GPU and its error.
        key: String,
    },
    /// Ask for a reset of the GPU at this PCI address.
    Reset {
        /// PCI address.
        pci: String,
    },
}

/// An event on the Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// One word.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// Whether somebody should look.
    pub is_warning: bool,
}

impl Notice {
    fn warning(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), is_warning: true }
    }

    fn normal(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { is_warning: false, ..Self::warning(reason, message) }
    }
}

/// One look.
#[must_use]
pub fn step(
    mut health: Health,
    look: &Look<'_>,
    rules: &Rules,
    now: Moment,
) -> (Health, Vec<Action>) {
    let mut actions = Vec::new();
    for line in look.lines {
        health.trends.take(line, now, &mut actions);
    }
    if look.is_round {
        let mut findings = look.findings.to_vec();
        findings.extend(health.trends.round(look, now));
        health.levels.round(&findings, look.is_complete, rules, now, &mut actions);
        health.ledger.round(look, now, &mut actions);
        if health.waits_for_a_round() {
            actions.push(Action::LookSoon);
        }
        health.ask_for_resets(look, rules, now, &mut actions);
    }
    for seen in look.xids {
        health.ledger.take(seen, look.gpus, rules, now, &mut actions);
    }
    health.blind = match (&look.blind, health.blind.take()) {
        (None, _) => None,
        (Some(why), Some((since, _))) => Some((since, why.clone())),
        (Some(why), None) => Some((now, why.clone())),
    };
    if let Some(standing) = standing::of(&health, look, now) {
        let changed =
            health.standing.as_ref().is_none_or(|before| before.status != standing.status);
        let since = if changed { now } else { health.standing.map_or(now, |before| before.since) };
        health.standing = Some(Standing { since, ..standing });
    }
    (health, actions)
}

impl Health {
    /// Whether the condition is False for something.
    #[must_use]
    pub fn is_ill(&self) -> bool {
        self.levels.open().next().is_some() || !self.ledger.open.is_empty()
    }

    /// Whether something that counts hangs on the next round alone.
    fn waits_for_a_round(&self) -> bool {
        self.levels.waits() || self.ledger.open.iter().any(|fault| fault.clean == 1)
    }

    /// Asks for a reset of every GPU for which the driver does.
    fn ask_for_resets(
        &mut self,
        look: &Look<'_>,
        rules: &Rules,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        if rules.reset == GpuReset::Off || !look.is_complete {
            return;
        }
        for gpu in look.gpus {
            // 1 reset, 4 drain and reset: the one who resets sees whether something runs there.
            if !matches!(gpu.recovery, Some(1 | 4)) {
                continue;
            }
            let (last, count) = self.resets.get(&gpu.pci).copied().unwrap_or_default();
            if count >= RESETS.0 || (count > 0 && now.saturating_sub(last) < RESETS.1) {
                continue;
            }
            self.resets.insert(gpu.pci.clone(), (now, count + 1));
            actions.push(Action::Reset { pci: gpu.pci.clone() });
        }
    }

    /// Tells of the join's reasons, each once a proving.
    pub fn tell_of_join(&mut self, attempt: u32, findings: &[Finding]) -> Vec<Action> {
        let mut actions = Vec::new();
        for finding in findings {
            if self.told.insert(format!("{attempt}/{}", finding.reason)) {
                let notice = Notice::warning(finding.reason.as_str(), finding.summary.clone());
                actions.push(Action::Tell(notice));
            }
        }
        actions
    }
}
