//! The points at which the join is killed by its tests: every write of the journal and of the spool,
//! which is before and after each phase and each side effect.
//!
//! The program itself lists them (`rollcall-agent crash-points`), so that no test can forget one, and
//! dies at one when it is told to (`join --die-at POINT`). Nothing else differs: what is killed in the
//! tests is the program that is shipped.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use contract::Phase;
use nix::sys::signal::{Signal, raise};
use serde::{Deserialize, Serialize};

/// A change that the join makes outside its own journal and report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// nodeadm's config phase writes the node's configuration.
    Configure,
    /// kubelet's assertion is opened.
    Admit,
    /// nodeadm's run phase starts kubelet.
    StartKubelet,
    /// The evidence of a failed join is kept.
    KeepEvidence,
    /// The report is written to Parameter Store.
    PutReport,
    /// The report is deleted there.
    DeleteReport,
    /// The instance is tagged.
    TagInstance,
}

impl Effect {
    /// All, in the order of a join that fails and heals.
    pub const ALL: [Self; 7] = [
        Self::Configure,
        Self::Admit,
        Self::StartKubelet,
        Self::KeepEvidence,
        Self::PutReport,
        Self::DeleteReport,
        Self::TagInstance,
    ];

    /// Its name in a point.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::Admit => "admit",
            Self::StartKubelet => "start-kubelet",
            Self::KeepEvidence => "keep-evidence",
            Self::PutReport => "put-report",
            Self::DeleteReport => "delete-report",
            Self::TagInstance => "tag-instance",
        }
    }
}

/// One point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The number of the proving is written.
    ProvingBegun,
    /// A phase has begun.
    PhaseBegun(Phase),
    /// A phase has its verdict.
    PhaseEnded(Phase),
    /// An effect is about to be made.
    Before(Effect),
    /// An effect has been made, and nothing says so yet.
    Unrecorded(Effect),
    /// An effect is recorded.
    After(Effect),
}

impl Point {
    /// Every point.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let phases =
            Phase::ALL.into_iter().flat_map(|p| [Self::PhaseBegun(p), Self::PhaseEnded(p)]);
        let effects = Effect::ALL
            .into_iter()
            .flat_map(|e| [Self::Before(e), Self::Unrecorded(e), Self::After(e)]);
        [Self::ProvingBegun].into_iter().chain(phases).chain(effects).collect()
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProvingBegun => f.write_str("proving-begun"),
            Self::PhaseBegun(phase) => write!(f, "begun-{phase}"),
            Self::PhaseEnded(phase) => write!(f, "ended-{phase}"),
            Self::Before(effect) => write!(f, "before-{}", effect.label()),
            Self::Unrecorded(effect) => write!(f, "unrecorded-{}", effect.label()),
            Self::After(effect) => write!(f, "after-{}", effect.label()),
        }
    }
}

/// No point is called so.
#[derive(Debug, thiserror::Error)]
#[error("no crash point is called `{0}`: rollcall-agent crash-points lists them")]
pub struct UnknownPoint(String);

impl FromStr for Point {
    type Err = UnknownPoint;

    /// By its name, or its number in the list, from 1.
    fn from_str(text: &str) -> Result<Self, UnknownPoint> {
        let number: Option<usize> = text.parse().ok();
        let mut all = (1..).zip(Self::all());
        let found = all.find(|(n, point)| number == Some(*n) || point.to_string() == text);
        found.map(|(_, point)| point).ok_or_else(|| UnknownPoint(text.to_owned()))
    }
}

static ARMED: OnceLock<Point> = OnceLock::new();

/// From now on this process dies at `point`.
pub fn arm(point: Point) {
    let _ = ARMED.set(point);
}

/// The join has come to `point`.
pub fn reached(point: Point) {
    if ARMED.get() == Some(&point)
        && let Err(error) = raise(Signal::SIGKILL)
    {
        tracing::error!(%error, %point, "could not die");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_has_a_name_of_its_own() {
        let points = Point::all();
        assert_eq!(points.len(), 1 + 2 * Phase::ALL.len() + 3 * Effect::ALL.len());
        for point in points {
            assert_eq!(point.to_string().parse::<Point>().unwrap(), point);
        }
        assert_eq!("1".parse::<Point>().unwrap(), Point::ProvingBegun);
        for bad in ["before-lunch", "0", "99", ""] {
            assert!(bad.parse::<Point>().is_err(), "{bad}");
        }
    }
}
