//! What `register` waits for before kubelet may start: cloud-init's last stage, whose scripts may
//! still configure the node.
//!
//! A script may take its time: while it has some left, nothing is said against it.

use std::time::Duration;

use contract::{Finding, Phase, Reason, Verdict};

use crate::host::Root;
use crate::host::clock;
use crate::host::systemd::{Systemd, UnitState};

/// The last stage of cloud-init, in which user scripts run.
pub const LAST_STAGE: &str = "cloud-final.service";

/// How cloud-init's last stage stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its unit.
    pub unit: UnitState,
    /// How long it has been running; none while it waits for its turn.
    pub running: Option<Duration>,
}

impl Facts {
    /// What the unit's state says at `uptime`: systemd counts from the boot as well.
    #[must_use]
    pub fn of(unit: UnitState, uptime: Option<Duration>) -> Self {
        let running = unit.started.and_then(|at| uptime?.checked_sub(at));
        Self { unit, running }
    }
}

/// Looks at cloud-init's last stage.
pub async fn gather(root: &Root, systemd: &Systemd) -> Facts {
    let unit = systemd.show(LAST_STAGE).await.unwrap_or_default();
    Facts::of(unit, clock::uptime(root))
}

/// Whether it is done: `Wait` while it may go on, `Fail` once it has run for `limit` or the whole
/// time for the join is up.
#[must_use]
pub fn verdict(facts: &Facts, limit: Duration, time_is_up: bool) -> Verdict {
    let Facts { unit, running } = facts;
    if !(unit.exists() && unit.is_pending()) {
        return Verdict::Pass;
    }
    let what = format!("`{LAST_STAGE}` is {} ({})", unit.active, unit.sub);
    // Of this phase, not of configure: what configure finds later does not refute it.
    let finding = |what| Finding::new(Reason::CloudInitStuck, Phase::Register, what);
    let is_over = time_is_up || running.is_some_and(|running| running >= limit);
    match (is_over, running) {
        (false, _) => Verdict::Wait(Box::new(finding(what))),
        (true, Some(running)) => {
            let seconds = running.as_secs();
            Verdict::Fail(vec![finding(format!("{what} and has run for {seconds} s"))])
        }
        (true, None) => Verdict::Fail(vec![finding(format!("{what} and waits for its turn"))]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(300);

    fn facts(active: &str, queued: bool, running: Option<u64>) -> Facts {
        let unit = UnitState {
            load: "loaded".into(),
            active: active.into(),
            queued,
            ..Default::default()
        };
        Facts { unit, running: running.map(Duration::from_secs) }
    }

    fn word(facts: &Facts, left: u64) -> String {
        match verdict(facts, LIMIT, left == 0) {
            Verdict::Pass => "pass".into(),
            Verdict::Wait(finding) => format!("wait: {}", finding.summary),
            Verdict::Fail(found) => format!("{}: {}", found[0].reason, found[0].summary),
            other @ Verdict::Degraded(_) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_script_may_take_its_time_and_no_more() {
        let unit = "`cloud-final.service` is";
        for (facts, left, expected) in [
            (facts("active", false, Some(9)), 0, "pass".to_owned()),
            (facts("failed", false, Some(9)), 0, "pass".to_owned()),
            (facts("inactive", false, None), 0, "pass".to_owned()),
            (facts("activating", false, Some(60)), 9, format!("wait: {unit} activating ()")),
            (
                facts("activating", false, Some(300)),
                9,
                format!("CloudInitStuck: {unit} activating () and has run for 300 s"),
            ),
            (
                facts("activating", false, Some(60)),
                0,
                format!("CloudInitStuck: {unit} activating () and has run for 60 s"),
            ),
            (facts("inactive", true, None), 9, format!("wait: {unit} inactive ()")),
            (
                facts("inactive", true, None),
                0,
                format!("CloudInitStuck: {unit} inactive () and waits for its turn"),
            ),
        ] {
            assert_eq!(word(&facts, left), expected, "{facts:?} with {left} s left");
        }
    }

    #[test]
    fn an_image_without_cloud_init_is_not_waited_for() {
        let unit = UnitState { load: "not-found".into(), ..UnitState::default() };
        assert_eq!(word(&Facts { unit, running: None }, 0), "pass");
    }
}
