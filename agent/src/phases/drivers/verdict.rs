//! What the facts mean: pure.

use std::time::Duration;

use contract::join_report::{Gpu, Gpus};
use contract::verdict::rank;
use contract::{Finding, Phase, Reason, Verdict};

use super::{DriverFacts, Expected};
use crate::gpu::expected::{Count, Expectation, first_branch, is_model};
use crate::gpu::probe::Outcome;
use crate::gpu::sample::{CallError, Failure, GpuSample};

/// A node that has been up for less may still be bringing its driver up, whatever its units say.
const SETTLING: Duration = Duration::from_secs(60);
/// A helper that had less time than this before the deadline is no proof of a hang.
const HANG_PROVEN: Duration = Duration::from_secs(10);
/// EC2 counts a card's memory, NVML what is left of it for use; less than this share is another card.
const MEMORY_SHARE: f64 = 0.85;

/// A cause, and whether it may still go away by itself.
struct Cause {
    finding: Finding,
    may_heal: bool,
}

/// Whether every GPU that was paid for works.
#[must_use]
pub fn verdict(facts: &DriverFacts, expected: &Expected) -> Verdict {
    let seen = Seen { facts, expectation: expected.expectation(), expected };
    let causes = seen.causes();
    let must_fail = causes.iter().any(|cause| cause.finding.reason.is_hard() && !cause.may_heal);
    let may_heal = causes.iter().any(|cause| cause.may_heal);
    let mut findings = rank(causes.into_iter().map(|cause| cause.finding).collect());
    if may_heal && !must_fail {
        return Verdict::Wait(Box::new(findings.swap_remove(0)));
    }
    Verdict::of(findings)
}

/// What the join report says of the GPUs.
#[must_use]
pub fn report(facts: &DriverFacts, expected: &Expected) -> Gpus {
    let seen = Seen { facts, expectation: expected.expectation(), expected };
    let asked = facts.nvml.driver.is_some();
    Gpus {
        expected: match seen.expectation.count {
            Count::Exactly(count) => Some(count),
            Count::AtLeastOne => Some(1),
            Count::Unknown => None,
        },
        pci: seen.pci().map(number),
        device_nodes: Some(number(facts.module.device_nodes.len())),
        nvml: asked.then(|| number(seen.working())),
        driver: facts.module.version.clone(),
        items: facts.nvml.gpus.iter().map(|gpu| seen.item(gpu)).collect(),
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

impl Seen<'_> {
    fn causes(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        causes.extend(self.absent());
        if causes.is_empty() {
            causes.extend(self.too_old().or_else(|| self.driver()));
        }
        if causes.is_empty() {
            causes.extend(self.lost());
            causes.extend(self.short());
            causes.extend(self.unexpected());
        }
        causes.extend(self.unknown());
        causes.extend(self.stale_cdi());
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

    fn absent(&self) -> Option<Cause> {
        let none = self.pci() == Some(0) && self.required() > 0;
        none.then(|| {
            let summary = format!(
                "0 of {} GPUs: the PCI bus of this `{}` shows none",
                self.required(),
                self.expected.instance_type
            );
            Cause { finding: self.finding(Reason::GpuAbsent, summary), may_heal: false }
        })
    }

    /// Trouble with the driver as a whole.
    fn driver(&self) -> Option<Cause> {
        let (reason, summary, may_heal) = match &self.facts.nvml.outcome {
            Outcome::NotAsked(_) if self.required() == 0 => return None,
            Outcome::NotAsked(_) => self.not_loaded(),
            Outcome::Failed(failure) => self.failed(failure),
            Outcome::Hung { asking, after } => (
                Reason::DriverHang,
                format!("no answer to {asking} within {:.0} s", after.as_secs_f64()),
                *after < HANG_PROVEN,
            ),
            Outcome::HelperFailed(error) => (
                Reason::DriverInitFailed,
                format!("the helper that asks NVML failed: {error}"),
                self.is_coming(),
            ),
            Outcome::Complete => self.changed_under_us()?,
        };
        Some(Cause { finding: self.finding(reason, summary), may_heal })
    }

    fn not_loaded(&self) -> (Reason, String, bool) {
        let what = "the kernel module `nvidia` is not loaded";
        let kernels = &self.facts.kernels;
        if kernels.is_mismatch() {
            let (running, built_for) = (kernels.running.as_deref(), kernels.built_for.join(", "));
            let summary = format!(
                "{what}: it is there for {built_for}, and {} runs",
                running.unwrap_or_default()
            );
            // A unit at work may be building it.
            return (Reason::DriverKernelMismatch, summary, self.pending_unit().is_some());
        }
        match (self.pending_unit(), self.failed_unit()) {
            (Some(unit), _) => {
                (Reason::DriverNotLoaded, format!("{what}; {unit} is at work"), self.is_coming())
            }
            (None, Some(unit)) => {
                (Reason::DriverUnitFailed, format!("{what}: {unit} has failed for good"), false)
            }
            (None, None) => (Reason::DriverNotLoaded, what.to_owned(), self.is_coming()),
        }
    }

    /// A driver that finds no GPUs, or fewer than there are, because it is older than they are.
    fn too_old(&self) -> Option<Cause> {
        let finds_less = match &self.facts.nvml.outcome {
            Outcome::Complete => {
                let found = self.facts.nvml.gpus.len();
                found < self.required() && self.pci().is_some_and(|count| count >= self.required())
            }
            Outcome::Failed(Failure::Init { error, .. }) => {
                error.code != CallError::VERSION_MISMATCH
            }
            _ => false,
        };
        let model = self.expectation.model.as_deref()?;
        let version = self.facts.module.version.as_deref()?;
        let branch: u32 = version.split('.').next()?.parse().ok()?;
        let first = first_branch(model).filter(|first| finds_less && branch < *first)?;
        let summary = format!("the driver is {version}, and {model} needs {first} or newer");
        Some(Cause { finding: self.finding(Reason::DriverTooOld, summary), may_heal: false })
    }

    fn stale_cdi(&self) -> Option<Cause> {
        let what = self.facts.stale_cdi.as_ref()?;
        let finding = Finding::new(Reason::CdiStale, Phase::Drivers, what.clone());
        Some(Cause { finding, may_heal: false })
    }

    fn failed(&self, failure: &Failure) -> (Reason, String, bool) {
        match failure {
            Failure::LibraryMissing { searched } => (
                Reason::DriverLibraryMissing,
                format!("libnvidia-ml.so.1 is in none of {} directories", searched.len()),
                self.is_coming(),
            ),
            Failure::LibraryUnloadable { library, error } => (
                Reason::DriverLibraryMissing,
                format!("`{library}` cannot be loaded: {error}"),
                self.is_coming(),
            ),
            Failure::Init { error, .. } if error.code == CallError::VERSION_MISMATCH => {
                let library = match &self.facts.library_version {
                    Some(version) => format!("the library is {version}"),
                    None => "the library is of another version".to_owned(),
                };
                let module = self.facts.module.version.as_deref().unwrap_or("unknown");
                (
                    Reason::DriverLibraryMismatch,
                    format!("the kernel module is {module}, {library}"),
                    // Time does not mend it; a unit that is still installing may.
                    self.pending_unit().is_some(),
                )
            }
            Failure::Init { error, .. } if error.code == CallError::DRIVER_NOT_LOADED => (
                Reason::DriverNotLoaded,
                format!("NVML finds no driver: {error}"),
                self.is_coming(),
            ),
            Failure::Init { error, .. } => (
                Reason::DriverInitFailed,
                format!("NVML does not initialise: {error}"),
                self.is_coming(),
            ),
        }
    }

    /// NVML answers for another driver than the kernel shows: one was replaced since.
    fn changed_under_us(&self) -> Option<(Reason, String, bool)> {
        let module = self.facts.module.version.as_ref()?;
        let nvml = &self.facts.nvml.driver.as_ref()?.version;
        (module != nvml).then(|| {
            let summary = format!("the kernel module is {module}, NVML answers for {nvml}");
            (Reason::DriverLibraryMismatch, summary, self.pending_unit().is_some())
        })
    }

    /// GPUs that are there and do not work.
    fn lost(&self) -> Vec<Cause> {
        let of_code = |wanted: u32| {
            let ill = self.facts.nvml.gpus.iter();
            ill.filter(move |gpu| gpu.error.as_ref().is_some_and(|error| error.code == wanted))
                .map(|gpu| self.name(gpu))
                .collect::<Vec<_>>()
        };
        let reasons = [
            (CallError::GPU_IS_LOST, Reason::GpuLost, "fallen off the bus"),
            (CallError::RESET_REQUIRED, Reason::GpuResetRequired, "in need of a reset"),
        ];
        let mut causes = Vec::new();
        for (code, reason, what) in reasons {
            let ill = of_code(code);
            if !ill.is_empty() {
                let summary = format!(
                    "{} of {} GPUs work: {} {what}",
                    self.working(),
                    self.required(),
                    ill.join(", ")
                );
                causes.push(Cause { finding: self.finding(reason, summary), may_heal: false });
            }
        }
        causes
    }

    /// Fewer GPUs than there must be, and the first layer that lacks one.
    fn short(&self) -> Option<Cause> {
        let required = self.required();
        let nodes = self.facts.module.device_nodes.len();
        let (counted, layer, may_heal) = if self.pci().is_some_and(|count| count < required) {
            (self.pci().unwrap_or_default(), "missing on the PCI bus".to_owned(), false)
        } else if nodes < required {
            let coming = self.pending_unit().is_some();
            (nodes, "missing among the device nodes /dev/nvidia<n>".to_owned(), coming)
        } else {
            let named = self.named_ill();
            let counted = self.facts.nvml.gpus.len().saturating_sub(named);
            let ill = self.facts.nvml.gpus.iter().filter(|gpu| is_otherwise_ill(gpu));
            let ill: Vec<String> = ill.map(|gpu| self.name_with_error(gpu)).collect();
            let working = counted - ill.len();
            if working + named >= required {
                return None;
            }
            let layer = match ill.as_slice() {
                [] => "missing in NVML".to_owned(),
                ill => format!("NVML cannot use {}", ill.join(", ")),
            };
            (working, layer, self.pending_unit().is_some())
        };
        let summary = format!("{counted} of {required} GPUs: {layer} ({})", self.counts());
        Some(Cause { finding: self.finding(Reason::GpuCountShort, summary), may_heal })
    }

    /// GPUs whose trouble has a reason of its own.
    fn named_ill(&self) -> usize {
        let named = [CallError::GPU_IS_LOST, CallError::RESET_REQUIRED];
        let gpus = self.facts.nvml.gpus.iter();
        gpus.filter(|gpu| gpu.error.as_ref().is_some_and(|e| named.contains(&e.code))).count()
    }

    /// Other GPUs than the instance type has, or more.
    fn unexpected(&self) -> Option<Cause> {
        let gpus = &self.facts.nvml.gpus;
        let kind = &self.expected.instance_type;
        let other_model = self.expectation.model.as_deref().and_then(|model| {
            let other = gpus.iter().find(|gpu| !gpu.name.is_empty() && !is_model(model, &gpu.name));
            other
                .map(|gpu| format!("GPU {} is a `{}`, a `{kind}` has {model}", gpu.index, gpu.name))
        });
        let other_memory = || {
            let expected = self.expectation.memory_mib?;
            let less = |gpu: &&GpuSample| {
                gpu.readings.memory.is_some_and(|memory| mib(memory.total) < expected_mib(expected))
            };
            let gpu = gpus.iter().find(less)?;
            let memory = gpu.readings.memory?.total >> 20;
            let index = gpu.index;
            Some(format!("GPU {index} has {memory} MiB, one of a `{kind}` has {expected} MiB"))
        };
        let more = || {
            let Count::Exactly(expected) = self.expectation.count else { return None };
            (gpus.len() > expected as usize)
                .then(|| format!("{} GPUs, a `{kind}` has {expected}", gpus.len()))
        };
        let summary = other_model.or_else(other_memory).or_else(more)?;
        let finding = self.finding(Reason::GpuModelUnexpected, summary);
        Some(Cause { finding, may_heal: false })
    }

    fn unknown(&self) -> Option<Cause> {
        (self.expectation.count == Count::Unknown).then(|| {
            let summary = format!(
                "how many GPUs a `{}` has is not known; {}",
                self.expected.instance_type,
                self.counts()
            );
            Cause { finding: self.finding(Reason::GpuCountUnknown, summary), may_heal: false }
        })
    }

    /// Whether the driver can still come up by itself.
    fn is_coming(&self) -> bool {
        self.pending_unit().is_some() || (self.failed_unit().is_none() && self.facts.up < SETTLING)
    }

    fn pending_unit(&self) -> Option<&'static str> {
        self.facts.units.iter().find(|(_, state)| state.is_pending()).map(|(unit, _)| *unit)
    }

    fn failed_unit(&self) -> Option<&'static str> {
        self.facts.units.iter().find(|(_, state)| state.active == "failed").map(|(unit, _)| *unit)
    }

    fn counts(&self) -> String {
        let expected = match self.expectation.count {
            Count::Exactly(count) => count.to_string(),
            Count::AtLeastOne => "at least 1".to_owned(),
            Count::Unknown => "unknown".to_owned(),
        };
        let pci = self.pci().map_or("unknown".to_owned(), |count| count.to_string());
        let nodes = self.facts.module.device_nodes.len();
        let nvml = match self.facts.nvml.driver {
            Some(_) => self.working().to_string(),
            None => "not asked".to_owned(),
        };
        format!("expected {expected}, PCI {pci}, device nodes {nodes}, NVML {nvml}")
    }

    fn name(&self, gpu: &GpuSample) -> String {
        match self.address(gpu) {
            Some(address) => format!("GPU {} at {address}", gpu.index),
            None => format!("GPU {}", gpu.index),
        }
    }

    fn name_with_error(&self, gpu: &GpuSample) -> String {
        let error = gpu.error.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("{} ({error})", self.name(gpu))
    }

    /// Where a GPU is. One that does not answer is told by its turn: NVML counts in bus order.
    fn address(&self, gpu: &GpuSample) -> Option<String> {
        if !gpu.pci.is_empty() {
            return Some(gpu.pci.clone());
        }
        let pci = self.facts.pci.as_ref()?;
        let counted = self.facts.nvml.driver.as_ref()?.count as usize;
        (counted == pci.len())
            .then(|| pci.get(gpu.index as usize).map(|gpu| gpu.address.clone()))?
    }

    fn item(&self, gpu: &GpuSample) -> Gpu {
        Gpu {
            index: gpu.index,
            pci: self.address(gpu).unwrap_or_default(),
            uuid: gpu.uuid.clone(),
            name: gpu.name.clone(),
            error: gpu.error.as_ref().map(ToString::to_string),
        }
    }

    /// What was seen, each with its source, the most telling first.
    fn evidence(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let ill = self.facts.nvml.gpus.iter().filter(|gpu| gpu.error.is_some());
        lines.extend(ill.map(|gpu| format!("NVML: {}", self.name_with_error(gpu))));
        lines.extend(self.facts.units.iter().map(|(unit, state)| {
            format!("systemctl show {unit}: {} ({}), {}", state.active, state.sub, state.result)
        }));
        lines.push(match &self.facts.pci {
            Some(pci) => format!("/sys/bus/pci/devices: {} of vendor 0x10de", functions(pci.len())),
            None => "/sys/bus/pci/devices: cannot be read".to_owned(),
        });
        let module = &self.facts.module;
        lines.push(match &module.version {
            Some(version) => format!("{}: {version}", module.source),
            None => "/proc/driver/nvidia/version: absent".to_owned(),
        });
        lines.push(format!("/dev: {} nodes nvidia<n>", module.device_nodes.len()));
        lines.push(match (&self.facts.nvml.driver, &self.facts.nvml.outcome) {
            (Some(driver), _) => {
                let (library, version) = (&driver.library, &driver.version);
                format!(
                    "{library}: driver {version}, counts {}, {} work",
                    driver.count,
                    self.working()
                )
            }
            (None, Outcome::NotAsked(why)) => format!("NVML: not asked, {why}"),
            (None, Outcome::Failed(Failure::Init { library, error })) => {
                format!("{library}: {error}")
            }
            (None, outcome) => format!("NVML: {outcome:?}"),
        });
        lines.push(format!("expected: {}", self.expectation.source));
        lines.extend(self.facts.unit_log.iter().cloned());
        lines
    }
}

fn functions(count: usize) -> String {
    if count == 1 { "1 function".to_owned() } else { format!("{count} functions") }
}

fn is_otherwise_ill(gpu: &GpuSample) -> bool {
    let named = [CallError::GPU_IS_LOST, CallError::RESET_REQUIRED];
    gpu.error.as_ref().is_some_and(|error| !named.contains(&error.code))
}

#[expect(clippy::cast_precision_loss, reason = "a comparison with a margin")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "a comparison with a margin")]
fn expected_mib(mib: u64) -> f64 {
    mib as f64 * MEMORY_SHARE
}

#[cfg(test)]
mod tests;
