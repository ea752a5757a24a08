//! What is said of the facts: names, counts, evidence.

use super::Seen;
use crate::gpu::expected::Count;
use crate::gpu::probe::Outcome;
use crate::gpu::sample::{Failure, GpuSample};

impl Seen<'_> {
    pub(super) fn counts(&self) -> String {
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

    pub(super) fn name(&self, gpu: &GpuSample) -> String {
        match self.address(gpu) {
            Some(address) => format!("GPU {} at {address}", gpu.index),
            None => format!("GPU {}", gpu.index),
        }
    }

    pub(super) fn name_with_error(&self, gpu: &GpuSample) -> String {
        let error = gpu.error.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("{} ({error})", self.name(gpu))
    }

    pub(super) fn address(&self, gpu: &GpuSample) -> Option<String> {
        self.facts.address(gpu)
    }

    /// What was seen, each with its source, the most telling first.
    pub(super) fn evidence(&self) -> Vec<String> {
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
