//! How long each phase may take: the smaller of its cap and what is left until registration.

use std::time::Duration;

use contract::Phase;
use contract::agent_config::Deadlines;

use crate::host::Deadline;

/// However much of the time was used before the join began, a first proving has this much: a node
/// that would have joined must not be refused because its agent was installed late.
const LEAST: Duration = Duration::from_secs(60);

/// The time of one proving.
#[derive(Clone, Debug)]
pub struct Budget {
    deadlines: Deadlines,
    registration: Option<Deadline>,
}

impl Budget {
    /// The time of the first proving of a boot, of which `used` was gone at `Instant::now()`.
    #[must_use]
    pub fn first(deadlines: Deadlines, used: Duration) -> Self {
        let whole = Duration::from_secs(
            deadlines.registration_seconds.unwrap_or(Deadlines::REGISTRATION_SECONDS),
        );
        let left = whole.saturating_sub(used).max(LEAST.min(whole));
        Self { deadlines, registration: Some(Deadline::within(left)) }
    }

    /// The time of a later proving: the phases' caps alone.
    #[must_use]
    pub const fn again(deadlines: Deadlines) -> Self {
        Self { deadlines, registration: None }
    }

    /// When the node has to be registered; none in a later proving.
    #[must_use]
    pub const fn registration(&self) -> Option<Deadline> {
        self.registration
    }

    /// The longest a phase may take.
    #[must_use]
    pub fn cap(&self, phase: Phase) -> Duration {
        self.deadlines.phase_seconds.get(&phase).map_or(phase.cap(), |s| Duration::from_secs(*s))
    }

    /// The deadline of a phase that begins now. Phase 8 comes after registration: it has its own.
    #[must_use]
    pub fn deadline(&self, phase: Phase) -> Deadline {
        self.limit(phase, self.cap(phase))
    }

    /// `duration` from now, and not later than the registration's deadline.
    #[must_use]
    pub fn limit(&self, phase: Phase, duration: Duration) -> Deadline {
        match self.registration {
            Some(registration) if phase <= Phase::Register => registration.at_most(duration),
            _ => Deadline::within(duration),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(deadline: Deadline) -> u64 {
        // Some time has passed since the deadline was set: round up.
        deadline.remaining().as_secs() + 1
    }

    #[test]
    fn a_phase_ends_at_its_cap_or_with_the_time() {
        let budget = Budget::first(Deadlines::default(), Duration::from_secs(400));
        assert_eq!(seconds(budget.registration().unwrap()), 200);
        assert_eq!(seconds(budget.deadline(Phase::Identify)), 60);
        assert_eq!(seconds(budget.deadline(Phase::Drivers)), 200);
        assert_eq!(seconds(budget.deadline(Phase::Ready)), 300);
    }

    #[test]
    fn a_late_start_has_a_minute_at_least() {
        let budget = Budget::first(Deadlines::default(), Duration::from_secs(86_400));
        assert_eq!(seconds(budget.deadline(Phase::Drivers)), 60);
    }

    #[test]
    fn later_provings_have_the_caps_alone() {
        let mut deadlines = Deadlines::default();
        deadlines.phase_seconds.insert(Phase::Drivers, 20);
        deadlines.registration_seconds = Some(5);
        let again = Budget::again(deadlines.clone());
        assert_eq!(seconds(again.deadline(Phase::Drivers)), 20);
        assert_eq!(seconds(again.deadline(Phase::Preflight)), 90);
        let first = Budget::first(deadlines, Duration::ZERO);
        assert_eq!(seconds(first.deadline(Phase::Drivers)), 5);
    }
}
