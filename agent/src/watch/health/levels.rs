//! Findings of the rounds: open when two rounds in a row have them, closed when two have not.
//!
//! One that comes and goes is held open for longer than the repairers wait: it would restart their
//! clock each time, and never be repaired.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use contract::{Finding, Reason, ReasonName};
use serde::{Deserialize, Serialize};

use super::{Action, Moment, Notice, ROUNDS, Rules};

/// So many openings within this time are a flapping.
const FLAPS: (usize, Duration) = (3, Duration::from_secs(3600));
/// How long a flapping one must be away: Karpenter waits 30 minutes for most reasons.
const HOLD: Duration = Duration::from_secs(40 * 60);
/// An event that would be the same again is not repeated for so long.
pub(super) const QUIET: Duration = Duration::from_secs(600);

/// Every finding that is open, or may become so, by its reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Levels(BTreeMap<ReasonName, Level>);

/// One reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Level {
    /// As it was last found.
    pub finding: Finding,
    /// Whether the condition shows it.
    pub counts: bool,
    /// Since when it is open; none while it is not believed yet, or over.
    pub open: Option<Moment>,
    /// Rounds in a row that found it.
    pub found: u32,
    /// Rounds in a row that did not, and since when.
    pub clean: Option<(u32, Moment)>,
    /// When it was opened lately.
    pub openings: Vec<Moment>,
    /// When it was last told.
    pub told: Option<Moment>,
}

impl Levels {
    /// What is open and counts.
    pub fn open(&self) -> impl Iterator<Item = &Level> {
        self.0.values().filter(|level| level.open.is_some() && level.counts)
    }

    /// What is open, whether it counts or not.
    pub fn all_open(&self) -> impl Iterator<Item = &Level> {
        self.0.values().filter(|level| level.open.is_some())
    }

    /// Whether something that counts was found, or was not, for the first time: the next round tells.
    pub(super) fn waits(&self) -> bool {
        self.0.values().filter(|level| level.counts).any(|level| match level.open {
            None => level.found > 0,
            Some(_) => level.clean.is_some_and(|(rounds, _)| rounds < ROUNDS),
        })
    }

    /// Takes what a round found. One that is not complete closes nothing.
    pub(super) fn round(
        &mut self,
        findings: &[Finding],
        is_complete: bool,
        rules: &Rules,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        for finding in findings {
            let level = match self.0.entry(finding.reason.clone()) {
                Entry::Occupied(level) => level.into_mut(),
                Entry::Vacant(place) => place.insert(Level::new(finding.clone())),
            };
            level.counts = rules.counts(&finding.reason);
            level.find(finding, now, actions);
        }
        // What a driver that does not answer hides has not gone away.
        if is_complete {
            for level in self.0.values_mut() {
                if !findings.iter().any(|found| found.reason == level.finding.reason) {
                    level.miss(now, actions);
                }
            }
        }
        self.0.retain(|_, level| {
            level.openings.retain(|at| now.saturating_sub(*at) < FLAPS.1);
            level.open.is_some() || level.found > 0 || !level.openings.is_empty()
        });
    }
}

impl Level {
    const fn new(finding: Finding) -> Self {
        Self {
            finding,
            counts: true,
            open: None,
            found: 0,
            clean: None,
            openings: Vec::new(),
            told: None,
        }
    }

    fn find(&mut self, finding: &Finding, now: Moment, actions: &mut Vec<Action>) {
        self.finding.clone_from(finding);
        self.found = self.found.saturating_add(1);
        self.clean = None;
        if self.open.is_none() && self.found >= needed(&finding.reason) {
            self.open = Some(now);
            self.openings.push(now);
            if self.told.is_none_or(|at| now.saturating_sub(at) >= QUIET) {
                self.told = Some(now);
                let notice = Notice::warning(finding.reason.as_str(), finding.summary.clone());
                actions.push(Action::Tell(notice));
            }
        }
    }

    fn miss(&mut self, now: Moment, actions: &mut Vec<Action>) {
        self.found = 0;
        let (rounds, since) = self.clean.unwrap_or((0, now));
        self.clean = Some((rounds.saturating_add(1), since));
        if self.open.is_none() || rounds + 1 < ROUNDS {
            return;
        }
        let flaps = self.openings.len() >= FLAPS.0;
        if flaps && now.saturating_sub(since) < HOLD {
            // Kept, though the openings grow old: the hold ends with the clean time alone.
            if let Some(last) = self.openings.last_mut() {
                *last = now;
            }
            return;
        }
        self.open = None;
        self.openings.retain(|_| !flaps);
        let message = format!("cleared: {}", self.finding.summary);
        actions.push(Action::Tell(Notice::normal(self.finding.reason.as_str(), message)));
    }
}

/// How many rounds must find it. A hang has been waited for already; a link may be retrained.
fn needed(reason: &ReasonName) -> u32 {
    match reason.known() {
        Some(Reason::DriverHang) => 1,
        Some(Reason::PcieLinkDegraded) => 3,
        _ => ROUNDS,
    }
}
