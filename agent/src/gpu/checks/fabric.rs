//! The NVSwitch fabric: its manager, and each GPU's place in it.
//!
//! Whether a node has a fabric is told by what is there, never by a product's name: NVSwitches on
//! the PCI bus, or two GPUs and more that know of a fabric. A single GPU has nobody to reach, so its
//! place is not judged.

use contract::Reason;

use super::{Found, answering};
use crate::gpu::catalogue::Check;
use crate::gpu::sample::{Fabric, GpuSample};
use crate::phases::drivers::DriverFacts;

/// `NVML_GPU_FABRIC_STATE_*`.
const NOT_STARTED: u32 = 1;
const IN_PROGRESS: u32 = 2;
const COMPLETED: u32 = 3;

/// The two-bit fields of the health mask, by their shift; 1 says that it is so, 2 that it is not.
const HEALTH: [(u32, &str); 4] = [
    (0, "degraded bandwidth"),
    (2, "a route being recovered"),
    (4, "an unhealthy route"),
    (6, "a recovery after an access timeout"),
];
/// The four-bit field behind them: 0 and 1 say that all is well.
const CONFIGURATION: u32 = 8;
const CONFIGURATIONS: [(u32, &str); 6] = [
    (2, "an incorrect system GUID"),
    (3, "an incorrect chassis serial number"),
    (4, "no partition"),
    (5, "too few NVLinks"),
    (6, "an incompatible GPU firmware"),
    (7, "an invalid location"),
];

/// The GPUs that are part of a fabric with others.
fn members(facts: &DriverFacts) -> Vec<(&GpuSample, &Fabric)> {
    let of = |gpu| fabric_of(gpu).map(|fabric| (gpu, fabric));
    let members: Vec<_> = answering(facts).filter_map(of).collect();
    if members.len() > 1 { members } else { Vec::new() }
}

fn fabric_of(gpu: &GpuSample) -> Option<&Fabric> {
    // State 0: in no fabric.
    gpu.readings.fabric.as_ref().filter(|fabric| fabric.state >= NOT_STARTED)
}

/// Whether a fabric manager has to run here. It has not where IMEX takes its place (GB200): there
/// GPUs are of one clique across nodes, and no unit of this name is installed.
pub(super) fn manager(facts: &DriverFacts) -> Option<Found> {
    let members = members(facts);
    if facts.nvswitches == 0 && members.is_empty() {
        return None;
    }
    // What systemd has not said is unknown.
    let unit = facts.services.fabric_manager.as_ref()?;
    let is_whole = |(_, fabric): &(_, &Fabric)| fabric.state == COMPLETED && fabric.error.is_none();
    let is_managed = !members.is_empty() && members.iter().all(is_whole);
    let what = if unit.is_active() || (!unit.exists() && is_managed) {
        return None;
    } else if !unit.exists() {
        "there is no unit nvidia-fabricmanager".to_owned()
    } else {
        let (active, result) = (&unit.active, &unit.result);
        format!("nvidia-fabricmanager is {active} ({result})")
    };
    let found = Found::of(Check::FabricManager, Reason::FabricManagerNotRunning, what);
    Some(found.healing(unit.is_pending()))
}

pub(super) fn of_gpus(facts: &DriverFacts) -> Vec<Found> {
    let members = members(facts);
    let state = members.iter().filter_map(|(gpu, fabric)| Some(state(fabric)?.on(gpu)));
    let health = members.iter().filter_map(|(gpu, fabric)| Some(health(fabric)?.on(gpu)));
    state.chain(health).collect()
}

fn state(fabric: &Fabric) -> Option<Found> {
    let (what, may_heal) = match (fabric.state, &fabric.error) {
        (NOT_STARTED, _) => ("has not been taken into the fabric".to_owned(), true),
        (IN_PROGRESS, _) => ("is still being taken into the fabric".to_owned(), true),
        (COMPLETED, Some(error)) => (format!("could not be taken into the fabric: {error}"), false),
        // Registered, or in a state that is newer than we are.
        _ => return None,
    };
    Some(Found::of(Check::FabricState, Reason::FabricNotReady, what).healing(may_heal))
}

fn health(fabric: &Fabric) -> Option<Found> {
    let mask = fabric.health_mask;
    let fields = HEALTH.iter().filter(|(shift, _)| (mask >> shift) & 0b11 == 1);
    let configuration = (mask >> CONFIGURATION) & 0xf;
    let wrong = CONFIGURATIONS.iter().filter(|(value, _)| *value == configuration);
    let said: Vec<&str> = fields.chain(wrong).map(|(_, what)| *what).collect();
    let what = format!("reports {} in the fabric (mask {mask:#x})", said.join(" and "));
    let found = || Found::of(Check::FabricHealth, Reason::FabricUnhealthy, what);
    (!said.is_empty()).then(found)
}
