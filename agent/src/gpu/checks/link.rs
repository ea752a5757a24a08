//! The links: PCIe to the host, NVLink to the other GPUs.

use contract::Reason;

use super::{Found, answering};
use crate::gpu::catalogue::Check;
use crate::phases::drivers::{DriverFacts, Expected};

/// NVLinks of a model by EC2's name for it, on the instance types that join them by NVSwitches.
const LINKS: [(&str, usize); 5] =
    [("A100", 12), ("H100", 18), ("H200", 18), ("B200", 18), ("B300", 18)];

/// A GPU with fewer lanes than its like. What a lone GPU has is not judged: on EC2 a healthy T4 has
/// eight of its sixteen.
pub(super) fn pcie(facts: &DriverFacts) -> Vec<Found> {
    let gpus = facts.pci.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    for gpu in gpus {
        let like = gpus.iter().filter(|other| other.device == gpu.device);
        let widest = like.filter_map(|other| Some(other.width?.0)).max();
        if let (Some((width, _)), Some(widest)) = (gpu.width, widest)
            && width < widest
        {
            let what = format!("has {width} PCIe lanes, its like {widest}");
            let sample = facts.nvml.gpus.iter().find(|sample| sample.pci == gpu.address);
            let one = Found::of(Check::PcieWidth, Reason::PcieLinkDegraded, what);
            found.push(sample.map_or_else(|| one.clone(), |sample| one.clone().on(sample)));
        }
    }
    found
}

/// Links that are down, on nodes whose GPUs are all joined to each other. With MIG a GPU keeps to
/// itself, and a single one has nobody to reach.
pub(super) fn nvlinks(facts: &DriverFacts, expected: &Expected) -> Vec<Found> {
    let model = expected.expectation().model;
    let Some((_, wanted)) = LINKS.iter().find(|(name, _)| model.as_deref() == Some(*name)) else {
        return Vec::new();
    };
    let gpus = || answering(facts).filter(|gpu| gpu.readings.mig != Some(true));
    if gpus().count() < 2 {
        return Vec::new();
    }
    let below = gpus().filter_map(|gpu| {
        let links = gpu.readings.nvlinks.as_ref()?;
        if links.up >= *wanted {
            return None;
        }
        let which: Vec<String> = links.down.iter().map(ToString::to_string).collect();
        let which =
            if which.is_empty() { String::new() } else { format!(": {}", which.join(", ")) };
        let what = format!("has {} of {wanted} NVLinks up, down{which}", links.up);
        Some(Found::of(Check::NvlinkActive, Reason::NvlinkDown, what).on(gpu))
    });
    below.collect()
}
