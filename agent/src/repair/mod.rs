//! Repair before the verdict: while nothing runs on the node, its driver may be started again, its
//! GPUs reset, the whole node rebooted once. Afterwards nothing of that is ours to do.
//!
//! [`rungs`] says what may be tried for which reason, in which order (pure); [`memory`] remembers on
//! disk what was begun, before it is begun, so that a kill or a reboot in the middle repeats nothing;
//! [`act`] does it. [`Ladder`] climbs, one rung for each closed verdict.

pub mod act;
pub mod memory;
pub mod rungs;

use std::time::Duration;

use contract::agent_config::Repair as Mode;
use contract::join_report::Repair;
use contract::{ErrorChain, Finding, Verdict};

use self::memory::{Memory, Tried};
use self::rungs::Step;
use crate::host::{Deadline, Root};
use crate::phases::drivers::{DriverFacts, Expected};

/// How long the node is looked at after a repair, at least.
pub const LOOK_AFTER: Duration = Duration::from_secs(60);

/// What a climb has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Climb {
    /// There is nothing to try, or it may not be tried: the verdict stands.
    Stop,
    /// Something was tried: the node has to be looked at again.
    LookAgain,
}

/// The repairs of one node, across its provings, lives and boots.
#[derive(Debug)]
pub struct Ladder<'a> {
    root: &'a Root,
    boot: &'a str,
    mode: Mode,
    /// Whether pods may run here: then nothing is touched.
    is_admitted: bool,
    memory: Memory,
}

impl<'a> Ladder<'a> {
    /// The ladder of this boot, with what was tried before.
    #[must_use]
    pub fn new(root: &'a Root, boot: &'a str, mode: Mode, is_admitted: bool) -> Self {
        Self { root, boot, mode, is_admitted, memory: Memory::load(root) }
    }

    /// What the report says: what was tried, and in observe mode what would have been.
    #[must_use]
    pub fn report(&self) -> Vec<Repair> {
        self.memory.tried.iter().map(Tried::report).collect()
    }

    /// Tries the next thing that may help against this verdict, unless the whole deadline leaves no
    /// time for it. What was tried before is judged by the verdict first.
    pub async fn climb(
        &mut self,
        verdict: &Verdict,
        facts: &DriverFacts,
        expected: &Expected,
        whole: Option<Deadline>,
    ) -> Climb {
        self.memory.judge(findings(verdict));
        let wanted = if self.mode == Mode::Off || self.is_admitted {
            None
        } else {
            let tried = self.tried();
            rungs::next(&against(verdict), facts, expected, self.boot, &tried)
        };
        let time_left = whole.map(Deadline::remaining);
        let step = wanted.filter(|step| time_left.is_none_or(|left| left > step.rung.cap()));
        let climb = match step {
            Some(step) if self.mode == Mode::On => self.take(&step).await,
            Some(step) => {
                // The first thing to do says what the others would come to.
                if !self.tried().iter().any(|before| before.reason == step.reason.name()) {
                    self.memory.begin(&step, self.boot, true);
                }
                Climb::Stop
            }
            None => Climb::Stop,
        };
        self.memory.save(self.root);
        climb
    }

    /// What counts as tried: what was only observed does not, once it may be done.
    fn tried(&self) -> Vec<Tried> {
        let is_observed = self.mode == Mode::Observe;
        let tried = self.memory.tried.iter().filter(|tried| tried.observed == is_observed);
        tried.cloned().collect()
    }

    async fn take(&mut self, step: &Step) -> Climb {
        if act::is_in_service(self.root).await {
            self.is_admitted = true;
            return Climb::Stop;
        }
        let action = step.action();
        tracing::warn!(reason = %step.reason, action, "repair");
        self.memory.begin(step, self.boot, false);
        if let Err(error) = self.memory.try_save(self.root) {
            // What is not written down could be done twice: it is not done at all.
            tracing::error!(error = %ErrorChain(&error), action, "not repaired: nothing remembers it");
            self.memory.tried.pop();
            return Climb::Stop;
        }
        let ended = act::carry_out(self.root, step).await;
        if let Err(error) = &ended {
            tracing::warn!(error = %ErrorChain(error), action, "the repair failed");
        }
        self.memory.end(ended.is_ok());
        Climb::LookAgain
    }
}

/// The node is Ready: whatever ails it later is another story.
pub fn forget(root: &Root) {
    Memory::forget(root);
}

fn findings(verdict: &Verdict) -> &[Finding] {
    match verdict {
        Verdict::Pass => &[],
        Verdict::Wait(finding) => std::slice::from_ref(finding),
        Verdict::Degraded(findings) | Verdict::Fail(findings) => findings,
    }
}

/// What there is to mend: what closes the gate, or the soft things of one that is open.
fn against(verdict: &Verdict) -> Vec<Finding> {
    match verdict {
        Verdict::Pass | Verdict::Wait(_) => Vec::new(),
        Verdict::Degraded(findings) => {
            findings.iter().filter(|finding| !finding.reason.is_hard()).cloned().collect()
        }
        Verdict::Fail(findings) => findings.clone(),
    }
}

#[cfg(test)]
mod tests;
