//! What the facts mean: pure.
//!
//! First whether the driver comes up ([`bring_up`]); when it does, how many GPUs work ([`count`]) and
//! how they are ([`crate::gpu::checks`]).

mod bring_up;
mod count;
mod words;

use std::time::Duration;

use contract::join_report::{Gpu, Gpus};
use contract::verdict::rank;
use contract::{Finding, Phase, Reason, Verdict};

use super::{DriverFacts, Expected};
use crate::gpu::checks::{self, Found};
use crate::gpu::expected::{Count, Expectation};
use crate::gpu::sample::GpuSample;

/// A node that has been up for less may still be bringing its driver up, whatever its units say.
const SETTLING: Duration = Duration::from_secs(60);
/// A helper that had less time than this before the deadline is no proof of a hang.
const HANG_PROVEN: Duration = Duration::from_secs(10);
/// EC2 counts a card's memory, NVML what is left of it for use; less than this share is another card.
const MEMORY_SHARE: f64 = 0.85;
/// So many GPUs are named in a summary; the evidence has them all.
const NAMED: usize = 3;

/// A cause, and whether it may still go away by itself.
struct Cause {
    finding: Finding,
    may_heal: bool,
}

/// Whether every GPU that was paid for works.
#[must_use]
pub fn verdict(facts: &DriverFacts, expected: &Expected) -> Verdict {
    let causes = Seen::of(facts, expected).causes();
    let must_fail = causes.iter().any(|cause| cause.finding.reason.is_hard() && !cause.may_heal);
    let may_heal = causes.iter().any(|cause| cause.may_heal);
    let mut findings = rank(causes.into_iter().map(|cause| cause.finding).collect());
    if may_heal && !must_fail {
        return Verdict::Wait(Box::new(findings.swap_remove(0)));
    }
    Verdict::of(findings)
}

/// What is found of the GPUs once the node has joined, beside the [`verdict`].
#[must_use]
pub fn after_join(facts: &DriverFacts, expected: &Expected) -> Vec<Finding> {
    let causes = Seen::of(facts, expected).causes_of(&checks::after_join(facts));
    causes.into_iter().map(|cause| cause.finding).collect()
}

/// What the join report says of the GPUs.
#[must_use]
pub fn report(facts: &DriverFacts, expected: &Expected) -> Gpus {
    let seen = Seen::of(facts, expected);
    let asked = facts.nvml.driver.is_some();
    let found = checks::health(facts, expected);
    let devices = facts.devices();
    Gpus {
        expected: match seen.expectation.count {
            Count::Exactly(count) => Some(count),
            Count::AtLeastOne => Some(1),
            Count::Unknown => None,
        },
        pci: seen.pci().map(number),
        device_nodes: Some(number(facts.module.device_nodes.len())),
        nvml: asked.then(|| number(seen.working())),
        mig_devices: (devices.divided > 0).then_some(devices.parts),
        gsp: facts.nvml.gpus.iter().find_map(|gpu| gpu.readings.gsp),
        driver: facts.module.version.clone(),
        items: facts.nvml.gpus.iter().map(|gpu| seen.item(gpu, &found)).collect(),
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The facts against what was expected.
struct Seen<'a> {
    facts: &'a DriverFacts,
    expectation: Expectation,
    expected: &'a Expected,
}

impl<'a> Seen<'a> {
    fn of(facts: &'a DriverFacts, expected: &'a Expected) -> Self {
        Self { facts, expectation: expected.expectation(), expected }
    }

    fn causes(&self) -> Vec<Cause> {
        let mut causes: Vec<Cause> = self.absent().into_iter().collect();
        if causes.is_empty() {
            causes.extend(self.of_dead_gpus());
            causes.extend(self.wrong_kind().or_else(|| self.too_old()).or_else(|| self.driver()));
        }
        if causes.is_empty() {
            causes.extend(self.lost());
            causes.extend(self.short());
            causes.extend(self.unexpected());
            causes.extend(self.health());
        }
        causes.extend(self.unknown());
        causes
    }

    fn finding(&self, reason: Reason, summary: impl Into<String>) -> Finding {
        let mut finding = Finding::new(reason, Phase::Drivers, summary);
        finding.evidence = self.evidence();
        finding
    }

    fn pci(&self) -> Option<usize> {
        self.facts.pci.as_ref().map(Vec::len)
    }

    /// GPUs that NVML opens and that answer.
    fn working(&self) -> usize {
        self.facts.nvml.gpus.iter().filter(|gpu| gpu.error.is_none()).count()
    }

    /// How many there must be; for an unknown type, as many as the bus shows.
    fn required(&self) -> usize {
        match self.expectation.count {
            Count::Exactly(count) => count as usize,
            Count::AtLeastOne => self.pci().unwrap_or_default().max(1),
            Count::Unknown => self.pci().unwrap_or_default(),
        }
    }

    /// How the GPUs are that work.
    fn health(&self) -> Vec<Cause> {
        self.causes_of(&checks::health(self.facts, self.expected))
    }

    /// One cause per reason, whatever the number of GPUs.
    fn causes_of(&self, found: &[Found]) -> Vec<Cause> {
        let mut causes: Vec<Cause> = Vec::new();
        for (number, one) in found.iter().enumerate() {
            if found[..number].iter().any(|before| before.reason == one.reason) {
                continue;
            }
            let same: Vec<&Found> = found.iter().filter(|f| f.reason == one.reason).collect();
            let said: Vec<String> = same.iter().map(|found| self.say(found)).collect();
            let mut summary = said.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
            if said.len() > NAMED {
                summary += &format!("; and {} more", said.len() - NAMED);
            }
            let mut finding = Finding::new(one.reason, Phase::Drivers, summary);
            let source = one.check.entry();
            finding.evidence.push(format!("{}: {}", source.id, source.source));
            finding.evidence.extend(said.into_iter().skip(NAMED));
            finding.evidence.extend(self.evidence());
            let may_heal = same.iter().all(|found| found.may_heal);
            causes.push(Cause { finding, may_heal });
        }
        causes
    }

    fn say(&self, found: &Found) -> String {
        let of = |gpu: &&GpuSample| Some(gpu.index) == found.gpu;
        match self.facts.nvml.gpus.iter().find(of) {
            Some(gpu) => format!("{} {}", self.name(gpu), found.what),
            None => found.what.clone(),
        }
    }

    fn item(&self, gpu: &GpuSample, found: &[Found]) -> Gpu {
        let own = found.iter().filter(|found| found.gpu == Some(gpu.index));
        Gpu {
            index: gpu.index,
            pci: self.address(gpu).unwrap_or_default(),
            uuid: gpu.uuid.clone(),
            name: gpu.name.clone(),
            error: gpu.error.as_ref().map(ToString::to_string),
            found: own.map(|found| format!("{}: {}", found.reason, found.what)).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
