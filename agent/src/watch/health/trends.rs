//! What rounds show over time: totals that grow too fast, slowdowns that stay, programs that hang.
//!
//! A total's first value is where it starts, whoever has begun to watch; one that falls has begun anew
//! with what counts it, and what it had counted is over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use contract::{Finding, Phase, Reason};
use serde::{Deserialize, Serialize};

use super::levels::QUIET;
use super::{Action, Logged, Look, Moment, Notice};
use crate::gpu::checks::over_time::{self, Counted, Signs, StuckProcess};
use crate::gpu::log_line::LogLine;

/// The time in which so many errors are too many, and four fifths slow are a slowdown that stays.
const WINDOW: Duration = Duration::from_secs(600);
/// A slowdown that has been away for so long is over.
const CALM: Duration = Duration::from_secs(60);
/// A program that hangs for so long is stuck: short waits are how disks work.
const STUCK: Duration = Duration::from_secs(60);
/// So few rounds in ten minutes say nothing of a share.
const ROUNDS_MIN: u32 = 30;
/// So many of five rounds.
const SHARE: (u32, u32) = (4, 5);
/// So many are named in a summary.
const NAMED: usize = 3;
/// How many functions and programs are kept: a log can say anything.
const KEPT: usize = 64;

/// What is remembered of earlier rounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Trends {
    /// Who counts, and for which checks: later ones start with their first total.
    pub known: BTreeMap<String, BTreeSet<String>>,
    /// Totals that are not 0.
    pub totals: BTreeMap<String, Total>,
    /// GPUs that hardware held down within the last minute.
    pub slowed: BTreeMap<String, Slowed>,
    /// Programs that hang, and since when.
    pub stuck: BTreeMap<String, Moment>,
    /// Errors of PCIe functions in the kernel's log, by address and severity.
    pub logged: BTreeMap<String, [u64; 3]>,
    /// Crashes within NCCL in this boot.
    pub crashes: u64,
    /// Programs of which such an event was told, and when.
    pub told: BTreeMap<String, Moment>,
}

/// A total.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Total {
    /// As it was last read.
    pub last: u64,
    /// What came to it lately, by the minute.
    pub grown: Vec<(Moment, u64)>,
}

/// A GPU whose clocks are held down.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slowed {
    /// Minutes since the boot, with their rounds and how many of them were slow.
    pub minutes: Vec<(u64, u32, u32)>,
    /// When it was last slow.
    pub last: Moment,
}

impl Trends {
    /// Takes what the kernel's log says beside XIDs.
    pub(super) fn take(&mut self, logged: &Logged, now: Moment, actions: &mut Vec<Action>) {
        match &logged.line {
            LogLine::Pcie { pci, severity } => {
                if self.logged.len() < KEPT || self.logged.contains_key(pci) {
                    let counts = self.logged.entry(pci.clone()).or_default();
                    counts[(*severity).min(2)] += 1;
                }
            }
            LogLine::NcclCrash { pid, name, library } => {
                self.crashes += 1;
                self.told.retain(|_, at| now.saturating_sub(*at) < QUIET);
                if self.told.len() < KEPT && !self.told.contains_key(name) {
                    self.told.insert(name.clone(), now);
                    let process = logged.process.clone();
                    let who = process.unwrap_or_else(|| format!("process {name} (pid {pid})"));
                    let message = format!("{who} crashed in {library}");
                    let notice = Notice::warning(Reason::NcclCrash.name(), message);
                    actions.push(Action::Tell(notice));
                }
            }
        }
    }

    /// Takes a round: what it comes to with those before it.
    pub(super) fn round(&mut self, look: &Look<'_>, now: Moment) -> Vec<Finding> {
        let Some(signs) = look.signs else { return Vec::new() };
        let mut said = self.count(signs, now);
        said.extend(self.slow(signs, now));
        said.extend(self.hang(signs, look.is_complete, now));
        findings(said)
    }

    fn count(&mut self, signs: &Signs, now: Moment) -> Vec<(Reason, String)> {
        let logged = signs.uncounted.iter().flat_map(|(pci, whose)| {
            over_time::pcie(whose, self.logged.get(pci).copied().unwrap_or_default())
        });
        let logged: Vec<Counted> = logged.collect();
        let (mut fresh, mut said) = (Vec::new(), Vec::new());
        for one in signs.counted.iter().chain(&logged) {
            let id = one.check.entry().id;
            let is_known = self.known.get(&one.whose).is_some_and(|checks| checks.contains(id));
            if !is_known {
                fresh.push((one.whose.clone(), id));
            }
            let grown = self.grow(one, is_known, now);
            if grown >= one.limit {
                let text = format!("{}: {grown} {} in 10 minutes", one.whose, one.what);
                said.push((one.reason, text));
            }
        }
        for (whose, id) in fresh {
            self.known.entry(whose).or_default().insert(id.to_owned());
        }
        said
    }

    /// What has come to a total within the window.
    fn grow(&mut self, one: &Counted, is_known: bool, now: Moment) -> u64 {
        if one.total == 0 && self.totals.is_empty() {
            return 0;
        }
        let key = format!("{}: {}", one.whose, one.what);
        if one.total == 0 {
            self.totals.remove(&key);
            return 0;
        }
        let fresh = Total { last: if is_known { 0 } else { one.total }, grown: Vec::new() };
        let total = self.totals.entry(key).or_insert(fresh);
        if one.total < total.last {
            *total = Total { last: one.total, grown: Vec::new() };
        }
        let new = one.total - total.last;
        total.last = one.total;
        if new > 0 {
            match total.grown.last_mut() {
                Some((at, count)) if now.saturating_sub(*at) < CALM => *count += new,
                _ => total.grown.push((now, new)),
            }
        }
        total.grown.retain(|(at, _)| now.saturating_sub(*at) < WINDOW);
        total.grown.iter().map(|(_, count)| count).sum()
    }

    fn slow(&mut self, signs: &Signs, now: Moment) -> Vec<(Reason, String)> {
        for (gpu, is_slow) in &signs.slowed {
            if *is_slow || self.slowed.contains_key(gpu) {
                self.slowed.entry(gpu.clone()).or_default().round(*is_slow, now);
            }
        }
        self.slowed.retain(|_, slowed| now.saturating_sub(slowed.last) < CALM);
        let stays = self.slowed.iter().filter(|(_, slowed)| slowed.stays(now));
        stays
            .map(|(gpu, _)| {
                let text = format!("{gpu} is held down by hardware for most of ten minutes");
                (Reason::SlowdownPersists, text)
            })
            .collect()
    }

    fn hang(&mut self, signs: &Signs, is_complete: bool, now: Moment) -> Vec<(Reason, String)> {
        let key = |process: &StuckProcess| format!("{}/{}", process.pid, process.started);
        // What a driver that does not answer hides has not gone away.
        if is_complete {
            self.stuck.retain(|known, _| signs.stuck.iter().any(|process| key(process) == *known));
        }
        let mut said = Vec::new();
        for process in signs.stuck.iter().take(KEPT) {
            let since = *self.stuck.entry(key(process)).or_insert(now);
            if now.saturating_sub(since) < STUCK {
                continue;
            }
            let gpus: Vec<String> = process.gpus.iter().map(ToString::to_string).collect();
            let how = if process.state == 'Z' { "is dead and not collected" } else { "hangs" };
            let text = format!(
                "{} (pid {}) on GPU {} {how} (state {})",
                process.name,
                process.pid,
                gpus.join(", "),
                process.state
            );
            said.push((Reason::GpuProcessStuck, text));
        }
        said
    }
}

impl Slowed {
    fn round(&mut self, is_slow: bool, now: Moment) {
        let minute = now.as_secs() / 60;
        match self.minutes.last_mut() {
            Some((last, rounds, slow)) if *last == minute => {
                *rounds += 1;
                *slow += u32::from(is_slow);
            }
            _ => self.minutes.push((minute, 1, u32::from(is_slow))),
        }
        self.minutes.retain(|(at, ..)| at + WINDOW.as_secs() / 60 >= minute);
        if is_slow {
            self.last = now;
        }
    }

    /// Whether it has been slow for so much of the whole window.
    fn stays(&self, now: Moment) -> bool {
        let first = self.minutes.first().map_or(u64::MAX, |(minute, ..)| *minute);
        let is_whole = first.saturating_add(WINDOW.as_secs() / 60) <= now.as_secs() / 60;
        let rounds: u32 = self.minutes.iter().map(|(_, rounds, _)| rounds).sum();
        let slow: u32 = self.minutes.iter().map(|(.., slow)| slow).sum();
        is_whole && rounds >= ROUNDS_MIN && slow * SHARE.1 >= rounds * SHARE.0
    }
}

/// One finding for each reason, whoever it is of.
fn findings(said: Vec<(Reason, String)>) -> Vec<Finding> {
    let mut by_reason: BTreeMap<Reason, Vec<String>> = BTreeMap::new();
    for (reason, text) in said {
        by_reason.entry(reason).or_default().push(text);
    }
    let finding = |(reason, texts): (Reason, Vec<String>)| {
        let mut summary = texts.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
        if texts.len() > NAMED {
            summary += &format!("; and {} more", texts.len() - NAMED);
        }
        Finding::new(reason, Phase::Drivers, summary)
    };
    by_reason.into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests;
