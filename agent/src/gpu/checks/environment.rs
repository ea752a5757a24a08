//! What is around the GPUs: the driver's age, their division, the network adapters beside them, the container runtime's
//! description of them.

use std::collections::BTreeSet;

use contract::Reason;

use super::{Found, answering};
use crate::gpu::catalogue::Check;
use crate::phases::drivers::DriverFacts;

/// The first driver branch that asks EFA for an IOMMU group or a common root port.
const PICKY_BRANCH: u32 = 595;

/// MIG: as configured; and where nothing is, no GPU may be divided and have no parts.
pub(super) fn mig(facts: &DriverFacts, wanted: Option<u32>) -> Vec<Found> {
    let of_gpu = |gpu: &crate::gpu::sample::GpuSample| {
        let is_on = gpu.readings.mig?;
        let parts = gpu.readings.mig_devices.unwrap_or_default();
        let what = match (is_on, wanted) {
            (true, Some(0)) => "is divided by MIG, and must not be".to_owned(),
            (false, Some(wanted @ 1..)) => format!("has MIG off, and must have {wanted} parts"),
            (true, Some(wanted)) if parts != wanted => {
                format!("has {parts} MIG devices, and must have {wanted}")
            }
            (true, None) if gpu.readings.mig_devices == Some(0) => {
                "has MIG on and no MIG devices: no program can use it".to_owned()
            }
            _ => return None,
        };
        Some(Found::of(Check::MigLayout, Reason::MigLayoutMismatch, what).on(gpu))
    };
    answering(facts).filter_map(of_gpu).collect()
}

/// EFA: as many as configured, else as many as the bus shows. How many an instance type could have
/// says nothing: the launch template attaches them.
pub(super) fn efa(facts: &DriverFacts, wanted: Option<u32>) -> Option<Found> {
    let (shown, working) = (facts.efa.functions.len(), facts.efa.devices.len());
    let wanted = wanted.map_or(shown, |count| count as usize);
    let what = format!("{working} of {wanted} EFA devices work ({shown} on the PCI bus)");
    (working < wanted).then(|| Found::of(Check::EfaCount, Reason::EfaCountShort, what))
}

/// GPUDirect RDMA: what a driver of the picky branches refuses.
pub(super) fn topology(facts: &DriverFacts) -> Option<Found> {
    let version = facts.module.version.as_deref()?;
    let branch: u32 = version.split('.').next()?.parse().ok()?;
    let efas = &facts.efa.functions;
    if branch < PICKY_BRANCH || efas.is_empty() || efas.iter().any(|efa| efa.has_iommu_group) {
        return None;
    }
    let ports: BTreeSet<&str> =
        facts.pci.iter().flatten().filter_map(|gpu| gpu.root_port.as_deref()).collect();
    // Where a function hangs is unknown below a tree that does not show it.
    let strangers: Vec<&str> = efas
        .iter()
        .filter(|efa| efa.root_port.as_deref().is_some_and(|port| !ports.contains(port)))
        .map(|efa| efa.address.as_str())
        .collect();
    let what = format!(
        "driver {version} needs an IOMMU group or a common root port for GPUDirect: EFA {} has neither",
        strangers.join(", ")
    );
    (!ports.is_empty() && strangers.len() == efas.len())
        .then(|| Found::of(Check::EfaTopology, Reason::GdrTopologyUnsupported, what))
}

/// A driver that works, and is older than the pool wants.
pub(super) fn driver_policy(facts: &DriverFacts, wanted: Option<&str>) -> Option<Found> {
    let wanted = wanted?;
    let version = facts.module.version.as_deref()?;
    let numbers = |text: &str| -> Option<Vec<u32>> {
        text.split('.').map(|part| part.parse().ok()).collect()
    };
    let what = format!("the driver is {version}, and the pool asks for {wanted} or newer");
    (numbers(version)? < numbers(wanted)?)
        .then(|| Found::of(Check::DriverPolicy, Reason::DriverBelowPolicy, what))
}

/// nvidia-peermem, where programs are said to need it; it is named after its file.
pub(super) fn peermem(facts: &DriverFacts, is_wanted: bool) -> Option<Found> {
    let is_missing = is_wanted && facts.module.version.is_some() && !facts.module.peermem;
    let what = "the kernel module nvidia_peermem is not loaded, and the configuration asks for it";
    is_missing.then(|| Found::of(Check::Peermem, Reason::PeermemMissing, what))
}

pub(super) fn cdi(facts: &DriverFacts) -> Option<Found> {
    let what = facts.stale_cdi.as_ref()?;
    Some(Found::of(Check::Cdi, Reason::CdiStale, what.clone()))
}
