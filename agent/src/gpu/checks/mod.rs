//! What the facts say of each GPU's health: pure, and the same before the join and after it.
//!
//! Each function judges one row of the [catalogue](super::catalogue); what a GPU or its driver does
//! not tell is unknown and says nothing. The driver's coming up and the counting of GPUs belong to
//! the drivers phase, which asks here for the rest.

mod canary;
mod clocks;
mod environment;
mod fabric;
mod link;
mod memory;
pub mod over_time;

use contract::Reason;

use super::catalogue::Check;
use super::sample::{CallError, GpuSample};
use super::xid::{Record, Table, table};
use crate::phases::drivers::{DriverFacts, Expected};

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub check: Check,
    /// What it is named by.
    pub reason: Reason,
    /// NVML's index of the GPU; none: it is the node's.
    pub gpu: Option<u32>,
    /// What is wrong, a fragment that stands behind the GPU's name: `has 2 NVLinks down`.
    pub what: String,
    /// Whether it can still pass by itself before the join.
    pub may_heal: bool,
}

impl Found {
    fn of(check: Check, reason: Reason, what: impl Into<String>) -> Self {
        Self { check, reason, gpu: None, what: what.into(), may_heal: false }
    }

    const fn on(mut self, gpu: &GpuSample) -> Self {
        self.gpu = Some(gpu.index);
        self
    }

    const fn healing(mut self, may_heal: bool) -> Self {
        self.may_heal = may_heal;
        self
    }
}

/// Everything that is found, in the order of the catalogue.
#[must_use]
pub fn health(facts: &DriverFacts, expected: &Expected) -> Vec<Found> {
    let mut found = Vec::new();
    found.extend(link::pcie(facts));
    for gpu in answering(facts) {
        found.extend(memory::of_gpu(gpu));
        found.extend(persistence(gpu));
        found.extend(recovery(gpu));
        found.extend(fatal_xid(facts, gpu));
    }
    found.extend(fabric::manager(facts));
    found.extend(fabric::of_gpus(facts));
    found.extend(link::nvlinks(facts, expected));
    found.extend(environment::mig(facts, expected.mig_devices));
    found.extend(environment::efa(facts, expected.efa_devices));
    found.extend(environment::topology(facts));
    found.extend(environment::cdi(facts));
    found.extend(environment::driver_policy(facts, expected.min_driver.as_deref()));
    found.extend(canary::canary(facts));
    found.extend(environment::peermem(facts, expected.peermem));
    found.sort_by_key(|found| (found.check, found.gpu));
    found
}

/// What is judged of the same facts only after the join: a node that is warm or slow at the moment is no
/// node to keep out.
#[must_use]
pub fn after_join(facts: &DriverFacts) -> Vec<Found> {
    let mut found: Vec<Found> = answering(facts).flat_map(clocks::of_gpu).collect();
    found.sort_by_key(|found| (found.check, found.gpu));
    found
}

/// The GPUs that can be asked. One that answers nothing has a reason of its own.
fn answering(facts: &DriverFacts) -> impl Iterator<Item = &GpuSample> {
    facts.nvml.gpus.iter().filter(|gpu| gpu.error.is_none())
}

fn persistence(gpu: &GpuSample) -> Option<Found> {
    let is_off = gpu.readings.persistence == Some(false);
    let found = || Found::of(Check::Persistence, Reason::PersistenceModeOff, "is not persistent");
    is_off.then(|| found().on(gpu))
}

/// What the driver asks for itself. It outranks every table of ours.
fn recovery(gpu: &GpuSample) -> Option<Found> {
    let asked = match gpu.readings.recovery_action? {
        0 => return None,
        1 => "a reset of the GPU",
        2 => "a reboot of the node",
        3 => "its peers to be drained",
        4 => "a drain and then a reset of the GPU",
        // A value that is newer than we are is no reason to keep a node out.
        _ => return None,
    };
    let what = format!("is told by its driver to need {asked}");
    Some(Found::of(Check::RecoveryAction, Reason::GpuResetRequired, what).on(gpu))
}

/// The last fatal XID of a GPU in this boot. Where the driver says itself what it needs, that outranks
/// what it has logged.
fn fatal_xid(facts: &DriverFacts, gpu: &GpuSample) -> Option<Found> {
    if gpu.readings.recovery_action.is_some() {
        return None;
    }
    let table = Table::default();
    let is_fatal = |record: &&Record| {
        !record.switch && record.pci == gpu.pci && table.rule(record).class.is_fatal()
    };
    let code = facts.xids.iter().rev().find(is_fatal)?.code;
    let meaning = table::meaning(code).unwrap_or("unknown");
    let what = format!("has logged XID {code} ({meaning}) in this boot");
    Some(Found::of(Check::Xid, Reason::FatalXid, what).on(gpu))
}

/// GPUs that answer with an error that has a reason of its own.
#[must_use]
pub fn of_error(error: &CallError) -> Option<(Reason, &'static str)> {
    match error.code {
        CallError::GPU_IS_LOST => Some((Reason::GpuLost, "fallen off the bus")),
        CallError::RESET_REQUIRED => Some((Reason::GpuResetRequired, "in need of a reset")),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
