//! How many GPUs work, at which layer one went missing, and whether they are the right ones.

use contract::Reason;

use super::{Cause, MEMORY_SHARE, Seen};
use crate::gpu::checks;
use crate::gpu::expected::{Count, is_model};
use crate::gpu::sample::{CallError, GpuSample};

impl Seen<'_> {
    /// GPUs that are gone from the bus while the kernel still lists them. Needs no driver, so it is
    /// seen while the driver hangs over it.
    pub(super) fn of_dead_gpus(&self) -> Option<Cause> {
        let dead: Vec<&str> = self
            .facts
            .pci
            .iter()
            .flatten()
            .filter(|gpu| gpu.is_dead)
            .map(|gpu| gpu.address.as_str())
            .collect();
        let summary = format!(
            "{} of {} GPUs answer on the PCI bus: the config space of {} reads as nothing but ones",
            self.pci().unwrap_or_default() - dead.len(),
            self.required(),
            dead.join(", ")
        );
        let cause = || Cause { finding: self.finding(Reason::GpuLost, summary), may_heal: false };
        (!dead.is_empty()).then(cause)
    }

    /// GPUs that are there and do not work.
    pub(super) fn lost(&self) -> Vec<Cause> {
        let mut causes: Vec<Cause> = Vec::new();
        for code in [CallError::GPU_IS_LOST, CallError::RESET_REQUIRED] {
            let ill = self.facts.nvml.gpus.iter();
            let ill = ill.filter_map(|gpu| Some((gpu, gpu.error.as_ref()?)));
            let ill: Vec<_> = ill.filter(|(_, error)| error.code == code).collect();
            let Some((reason, what)) = ill.first().and_then(|(_, error)| checks::of_error(error))
            else {
                continue;
            };
            let names: Vec<String> = ill.iter().map(|(gpu, _)| self.name(gpu)).collect();
            let (working, required) = (self.working(), self.required());
            let summary = format!("{working} of {required} GPUs work: {} {what}", names.join(", "));
            causes.push(Cause { finding: self.finding(reason, summary), may_heal: false });
        }
        causes
    }

    /// Fewer GPUs than there must be, and the first layer that lacks one.
    pub(super) fn short(&self) -> Option<Cause> {
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
        let errors = self.facts.nvml.gpus.iter().filter_map(|gpu| gpu.error.as_ref());
        errors.filter(|error| checks::of_error(error).is_some()).count()
    }

    /// Other GPUs than the instance type has, or more.
    pub(super) fn unexpected(&self) -> Option<Cause> {
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

    pub(super) fn unknown(&self) -> Option<Cause> {
        (self.expectation.count == Count::Unknown).then(|| {
            let summary = format!(
                "how many GPUs a `{}` has is not known; {}",
                self.expected.instance_type,
                self.counts()
            );
            Cause { finding: self.finding(Reason::GpuCountUnknown, summary), may_heal: false }
        })
    }
}

fn is_otherwise_ill(gpu: &GpuSample) -> bool {
    gpu.error.as_ref().is_some_and(|error| checks::of_error(error).is_none())
}

#[expect(clippy::cast_precision_loss, reason = "a comparison with a margin")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "a comparison with a margin")]
fn expected_mib(mib: u64) -> f64 {
    mib as f64 * MEMORY_SHARE
}
