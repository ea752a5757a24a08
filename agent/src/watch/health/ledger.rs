//! What the driver has logged: every XID counted, and the fatal ones open until they are over.
//!
//! An XID is said once. It is over when two rounds since have had an answer of its GPU and the driver
//! asks for nothing (field 230), which outranks our table. Where the driver does not know that
//! field: when the GPU has been away since, as with a reset or a reload, and is back; or after an
//! hour in which nothing that can be measured shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::agent_config::XidClass;
use contract::{Reason, ReasonName};
use serde::{Deserialize, Serialize};

use super::history::REBOOTS;
use super::levels::QUIET;
use super::{Action, GpuLook, Look, Moment, Notice, ROUNDS, Rules, Seen};
use crate::gpu::xid::{
    POWER_SMOOTHING_BACK, POWER_SMOOTHING_LOST, RECOVERY_ACTION_CHANGED, Record, Rule, table,
};

/// How long an XID stays open where nothing says that it is over.
const UNSAID: Duration = Duration::from_secs(3600);
/// So many pods that fail on one GPU within this time put it under suspicion: NVIDIA's workflow for
/// XID 13 and 31.
const SUSPECT: (usize, Duration) = (3, Duration::from_secs(86_400));
/// How many times of one XID are kept for the thresholds.
const TIMES: usize = 64;
/// How many GPUs and codes are counted apart: a log can say anything.
const COUNTERS: usize = 512;

/// Everything that the driver has logged in this boot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ledger {
    /// Counters, by address and code.
    pub counters: BTreeMap<String, Counter>,
    /// The fatal ones that are not over.
    pub open: Vec<Fault>,
    /// Pods that failed on a GPU, and when, by its address.
    pub suspects: BTreeMap<String, Vec<(Moment, String)>>,
}

/// One XID of one GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counter {
    /// PCI address.
    pub pci: String,
    /// The code.
    pub code: u32,
    /// Whether it is a switch's.
    pub switch: bool,
    /// What follows from it.
    pub class: Option<XidClass>,
    /// How often it came.
    pub total: u64,
    /// When, the latest last.
    pub times: Vec<Moment>,
    /// When it was last told.
    pub told: Option<Moment>,
}

/// A fatal XID that is not over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// PCI address.
    pub pci: String,
    /// UUID of the GPU; empty when it is not known.
    pub uuid: String,
    /// The code.
    pub code: u32,
    /// Whether it is a switch's.
    pub switch: bool,
    /// What is asked for.
    pub class: XidClass,
    /// In how many earlier boots it was.
    pub earlier_boots: usize,
    /// When it came first and last.
    pub since: Moment,
    /// See [`Self::since`].
    pub last: Moment,
    /// The driver's words, and when, as a person reads them.
    pub said: String,
    /// Rounds since in which the GPU answered and the driver asked for nothing.
    pub clean: u32,
    /// Whether the GPU has been away since.
    pub was_away: bool,
}

impl Ledger {
    /// The code of the last XID of a GPU; none when it had none in this boot.
    #[must_use]
    pub fn last_code(&self, pci: &str) -> Option<u32> {
        let of_gpu = self.counters.values().filter(|one| one.pci == pci && !one.switch);
        of_gpu.max_by_key(|one| one.times.last().copied()).map(|one| one.code)
    }

    /// Takes a record.
    pub(super) fn take(
        &mut self,
        seen: &Seen,
        gpus: &[GpuLook],
        rules: &Rules,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let record = &seen.record;
        let rule = rules.xids.rule(record);
        if record.code == POWER_SMOOTHING_BACK {
            self.cancel(&record.pci, POWER_SMOOTHING_LOST);
        }
        if record.code == RECOVERY_ACTION_CHANGED && !record.switch {
            actions.push(Action::LookAgain);
        }
        let Some(counter) = self.count(record, rule.class, now) else { return };
        let enough = counter.within(&rule, now) >= rule.threshold as usize;
        let counts = rules.counts(&ReasonName::from(Reason::FatalXid));
        if rule.class.is_fatal() && enough && counts {
            let said = words(record, &seen.when);
            self.open(record, rule.class, said, gpus, rules, now, actions);
            return;
        }
        let is_told = rule.class != XidClass::Info;
        if is_told && counter.told.is_none_or(|at| now.saturating_sub(at) >= QUIET) {
            counter.told = Some(now);
            actions.push(Action::Tell(notice(seen, counter.total)));
        }
        if rule.class == XidClass::App {
            self.suspect(seen, now, actions);
        }
    }

    fn count(&mut self, record: &Record, class: XidClass, now: Moment) -> Option<&mut Counter> {
        let key = format!("{}/{}{}", record.pci, if record.switch { "s" } else { "" }, record.code);
        if self.counters.len() >= COUNTERS && !self.counters.contains_key(&key) {
            return None;
        }
        let counter = self.counters.entry(key).or_insert_with(|| Counter {
            pci: record.pci.clone(),
            code: record.code,
            switch: record.switch,
            ..Counter::default()
        });
        counter.class = Some(class);
        counter.total += 1;
        counter.times.push(now);
        if counter.times.len() > TIMES {
            counter.times.remove(0);
        }
        Some(counter)
    }

    fn cancel(&mut self, pci: &str, code: u32) {
        self.open.retain(|fault| fault.pci != pci || fault.code != code);
        for counter in self.counters.values_mut() {
            if counter.pci == pci && counter.code == code {
                counter.times.clear();
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one caller, which has them all at hand")]
    fn open(
        &mut self,
        record: &Record,
        class: XidClass,
        said: String,
        gpus: &[GpuLook],
        rules: &Rules,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let same = |fault: &&mut Fault| {
            fault.pci == record.pci && fault.code == record.code && fault.switch == record.switch
        };
        if let Some(fault) = self.open.iter_mut().find(same) {
            (fault.last, fault.clean, fault.was_away) = (now, 0, false);
            fault.said = said;
            return;
        }
        let uuid = gpus.iter().find(|gpu| gpu.pci == record.pci);
        let uuid = uuid.map(|gpu| gpu.uuid.clone()).unwrap_or_default();
        // A GPU keeps its UUID; its address is as good on an instance that never moves.
        let whose = if uuid.is_empty() { &record.pci } else { &uuid };
        let key = format!("{whose}/{}", record.code);
        let fault = Fault {
            pci: record.pci.clone(),
            uuid,
            code: record.code,
            switch: record.switch,
            class,
            earlier_boots: rules.history.earlier(&key),
            since: now,
            last: now,
            said,
            clean: 0,
            was_away: false,
        };
        actions.push(Action::Tell(Notice::warning(Reason::FatalXid.name(), fault.summary())));
        actions.push(Action::Remember { key });
        self.open.push(fault);
    }

    fn suspect(&mut self, seen: &Seen, now: Moment, actions: &mut Vec<Action>) {
        let Some(pod) = &seen.pod else { return };
        let pods = self.suspects.entry(seen.record.pci.clone()).or_default();
        pods.retain(|(at, _)| now.saturating_sub(*at) < SUSPECT.1);
        if pods.len() >= SUSPECT.0 || pods.iter().any(|(_, known)| known == pod) {
            return;
        }
        pods.push((now, pod.clone()));
        if pods.len() == SUSPECT.0 {
            let message = format!(
                "GPU {}: XIDs of applications in {} different pods within a day: the hardware may be \
                 at fault; run a diagnosis, or replace the instance when it goes on",
                seen.record.pci, SUSPECT.0
            );
            actions.push(Action::Tell(Notice::warning("GpuSuspect", message)));
        }
    }

    /// Takes a round: what is over is closed.
    pub(super) fn round(&mut self, look: &Look<'_>, now: Moment, actions: &mut Vec<Action>) {
        for fault in &mut self.open {
            fault.round(look);
        }
        let (over, open) =
            std::mem::take(&mut self.open).into_iter().partition(|fault| fault.is_over(look, now));
        self.open = open;
        let closed: Vec<Fault> = over;
        for fault in closed {
            let message = format!("cleared: {}", fault.summary());
            actions.push(Action::Tell(Notice::normal(Reason::FatalXid.name(), message)));
        }
    }
}

impl Counter {
    /// How often it came within the rule's window.
    fn within(&self, rule: &Rule, now: Moment) -> usize {
        let is_near = |at: &&Moment| rule.window.is_none_or(|w| now.saturating_sub(**at) <= w);
        self.times.iter().filter(is_near).count()
    }
}

impl Fault {
    fn round(&mut self, look: &Look<'_>) {
        let healthy = look.is_complete
            && if self.switch {
                look.gpus.iter().all(|gpu| gpu.answers && matches!(gpu.recovery, None | Some(0)))
            } else {
                let gpu = look.gpus.iter().find(|gpu| gpu.pci == self.pci);
                // One that a hang hides has not been away.
                self.was_away |=
                    gpu.map_or(look.is_complete || look.is_unloaded, |gpu| !gpu.answers);
                gpu.is_some_and(|gpu| gpu.answers && matches!(gpu.recovery, None | Some(0)))
            };
        self.clean = if healthy { self.clean.saturating_add(1) } else { 0 };
    }

    fn is_over(&self, look: &Look<'_>, now: Moment) -> bool {
        let driver_says = !self.switch
            && look.gpus.iter().any(|gpu| gpu.pci == self.pci && gpu.recovery.is_some());
        let quiet = now.saturating_sub(self.last);
        self.clean >= ROUNDS && (driver_says || self.was_away || quiet >= UNSAID)
    }

    /// The condition's reason: eks-node-monitoring-agent's vocabulary, which Karpenter matches. One that
    /// reboots did not mend must match none of the patterns that ask for a reboot.
    #[must_use]
    pub fn node_reason(&self) -> String {
        if self.is_repeated() {
            return "NvidiaRepeatedXidError".to_owned();
        }
        if self.switch {
            "NvidiaFabricError".to_owned()
        } else {
            format!("NvidiaXID{}Error", self.code)
        }
    }

    /// Whether reboots have not mended it.
    #[must_use]
    pub const fn is_repeated(&self) -> bool {
        self.earlier_boots >= REBOOTS
    }

    /// One sentence: which GPU, what, what to do.
    #[must_use]
    pub fn summary(&self) -> String {
        let what = match (self.switch, table::meaning(self.code)) {
            (true, _) => format!("SXid {}", self.code),
            (false, Some(meaning)) => format!("XID {} ({meaning})", self.code),
            (false, None) => format!("XID {}", self.code),
        };
        let which = match (self.switch, self.uuid.is_empty()) {
            (true, _) => format!("NVSwitch {}", self.pci),
            (false, true) => format!("GPU {}", self.pci),
            (false, false) => format!("GPU {} at {}", self.uuid, self.pci),
        };
        let remedy = match self.class {
            _ if self.is_repeated() => "reboots have not mended it: replace the instance",
            XidClass::Replace => "replace the instance",
            XidClass::Reboot => "reboot the node",
            _ => "reset the GPU or reboot the node",
        };
        format!("{what} on {which}: {}; {remedy}", self.said)
    }
}

fn words(record: &Record, when: &str) -> String {
    let mut detail = record.detail.clone();
    detail.truncate(detail.floor_char_boundary(160));
    if when.is_empty() { detail } else { format!("{detail} ({when})") }
}

fn notice(seen: &Seen, total: u64) -> Notice {
    let record = &seen.record;
    let meaning = table::meaning(record.code);
    let reason = match (record.switch, meaning) {
        (true, _) => format!("NvidiaSXID{}Warning", record.code),
        (false, None) => "UnknownXid".to_owned(),
        (false, Some(_)) => format!("NvidiaXID{}Warning", record.code),
    };
    let mut message = match (record.switch, meaning) {
        (true, _) => format!("SXid {} on NVSwitch {}", record.code, record.pci),
        (false, None) => format!("XID {} on GPU {}", record.code, record.pci),
        (false, Some(meaning)) => {
            format!("XID {} ({meaning}) on GPU {}", record.code, record.pci)
        }
    };
    if let Some(process) = &seen.process {
        message.push_str(&format!(", {process}"));
    }
    if total > 1 {
        message.push_str(&format!(", {total} times in this boot"));
    }
    Notice::warning(reason, format!("{message}: {}", words(record, &seen.when)))
}
