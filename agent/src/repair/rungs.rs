//! What may be tried for which reason, the gentlest first. Pure.

use std::time::Duration;

use contract::{Finding, Reason};

use super::memory::Tried;
use crate::gpu::checks;
use crate::phases::drivers::{DriverFacts, Expected};

/// One thing to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// Ask once more after a moment: one cold start in a thousand fails for no reason.
    AskAgain(u8),
    /// Restart a unit.
    Restart(&'static str),
    /// Take the kernel modules out and put them in again.
    Reload,
    /// Reset the GPUs that want it.
    Reset,
    /// Reboot the node, once until it has been Ready.
    Reboot,
}

const FABRIC_MANAGER: Rung = Rung::Restart("nvidia-fabricmanager.service");
const PERSISTENCED: Rung = Rung::Restart("nvidia-persistenced.service");
const KMOD_LOAD: Rung = Rung::Restart("nvidia-kmod-load.service");

/// What may be tried for a reason; nothing for what only another instance or image mends.
///
/// EKS's newer images refuse to have nvidia-setup started by hand (`RefuseManualStart`), so there the
/// modules are loaded directly.
#[must_use]
pub const fn ladder(reason: Reason) -> &'static [Rung] {
    use Rung::{AskAgain, Reboot, Reload, Reset};
    match reason {
        Reason::DriverInitFailed => &[AskAgain(1), AskAgain(2), AskAgain(3), Reload, Reboot],
        Reason::DriverNotLoaded | Reason::DriverUnitFailed => &[KMOD_LOAD, Reload, Reboot],
        Reason::DriverLibraryMismatch => &[Reload, Reboot],
        Reason::DriverHang | Reason::GpuLost => &[Reboot],
        Reason::GpuCountShort => &[AskAgain(1), Reload, Reboot],
        Reason::GpuResetRequired | Reason::RowRemapPending | Reason::EccUncorrectable => {
            &[Reset, Reboot]
        }
        Reason::NvlinkDown => &[Reset, Reboot],
        Reason::FabricManagerNotRunning => &[FABRIC_MANAGER, Reboot],
        Reason::FabricNotReady | Reason::FabricUnhealthy => &[FABRIC_MANAGER, Reset, Reboot],
        Reason::PersistenceModeOff => &[PERSISTENCED],
        _ => &[],
    }
}

impl Rung {
    /// How long it may take.
    #[must_use]
    pub const fn cap(self) -> Duration {
        Duration::from_secs(match self {
            Self::AskAgain(_) => 2,
            Self::Restart(_) | Self::Reset => 60,
            Self::Reload => 90,
            Self::Reboot => 30,
        })
    }

    /// Its name, which tells it from every other rung.
    #[must_use]
    pub fn label(self) -> String {
        match self {
            Self::AskAgain(turn) => format!("ask again ({turn})"),
            Self::Restart(unit) => format!("restart {unit}"),
            Self::Reload => "load the driver's modules anew".to_owned(),
            Self::Reset => "reset".to_owned(),
            Self::Reboot => "reboot the node".to_owned(),
        }
    }
}

/// A rung for a reason, and the GPUs that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it is tried for.
    pub reason: Reason,
    /// What is tried.
    pub rung: Rung,
    /// PCI addresses of the GPUs to reset.
    pub gpus: Vec<String>,
}

impl Step {
    /// What is done, in words.
    #[must_use]
    pub fn action(&self) -> String {
        match self.rung {
            Rung::Reset => format!("reset {}", self.gpus.join(", ")),
            other => other.label(),
        }
    }
}

/// The next thing to try against these findings; nothing when one of them cannot be mended here, or
/// all has been tried.
#[must_use]
pub fn next(
    findings: &[Finding],
    facts: &DriverFacts,
    expected: &Expected,
    boot: &str,
    tried: &[Tried],
) -> Option<Step> {
    let is_hard = findings.iter().any(|finding| finding.reason.is_hard());
    let known = findings.iter().filter(|finding| finding.reason.is_hard() == is_hard);
    let reasons: Vec<Reason> = known.filter_map(|finding| finding.reason.known()).collect();
    if is_hard && reasons.iter().any(|reason| !can_be_mended(*reason, facts)) {
        return None;
    }
    let steps = reasons.iter().flat_map(|reason| {
        let of_reason = ladder(*reason).iter();
        of_reason.map(|rung| Step {
            reason: *reason,
            rung: *rung,
            gpus: gpus(*reason, facts, expected),
        })
    });
    // Everything gentle for every reason comes before the reboot, which is for all of them.
    let mut steps: Vec<Step> = steps.collect();
    steps.sort_by_key(|step| step.rung == Rung::Reboot);
    steps.into_iter().find(|step| is_new(step, boot, tried) && has_target(step, facts))
}

/// A GPU that is missing on the bus comes back by nothing that is done here.
fn can_be_mended(reason: Reason, facts: &DriverFacts) -> bool {
    let is_on_bus = || {
        let answering = facts.nvml.gpus.iter().filter(|gpu| gpu.error.is_none()).count();
        facts.pci.as_ref().is_some_and(|pci| pci.len() > answering)
    };
    !ladder(reason).is_empty() && (reason != Reason::GpuCountShort || is_on_bus())
}

fn is_new(step: &Step, boot: &str, tried: &[Tried]) -> bool {
    let label = step.rung.label();
    !tried.iter().any(|before| match step.rung {
        // A reboot is for all reasons, and remembered beyond itself.
        Rung::Reboot => before.rung == label,
        _ => before.rung == label && before.boot == boot && before.reason == step.reason.name(),
    })
}

fn has_target(step: &Step, facts: &DriverFacts) -> bool {
    match step.rung {
        Rung::Reset => !step.gpus.is_empty(),
        // Where it runs already, something else keeps the mode off.
        PERSISTENCED => facts
            .services
            .persistenced
            .as_ref()
            .is_some_and(|unit| unit.exists() && !unit.is_active()),
        _ => true,
    }
}

/// The GPUs that a reason is about, by address.
fn gpus(reason: Reason, facts: &DriverFacts, expected: &Expected) -> Vec<String> {
    let found = checks::health(facts, expected);
    let is_meant = |gpu: &&crate::gpu::sample::GpuSample| {
        let by_error = gpu.error.as_ref().and_then(checks::of_error);
        by_error.is_some_and(|(named, _)| named == reason)
            || found.iter().any(|one| one.reason == reason && one.gpu == Some(gpu.index))
    };
    let meant = facts.nvml.gpus.iter().filter(is_meant);
    meant.filter_map(|gpu| facts.address(gpu)).collect()
}
