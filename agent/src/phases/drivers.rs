//! Phase 4, drivers: does every GPU that was paid for work?
//!
//! Facts come in the order in which they can be trusted not to hang: the PCI bus, the kernel
//! module, NVML in a helper process, the device nodes. The verdict says at which of these layers a
//! GPU went missing. What cannot heal fails at once; what still may, because a driver unit is at
//! work or the node has only just started, is waited for.

mod facts;
mod verdict;

pub use facts::{DriverFacts, Services, fingerprint, gather, gather_with};
pub use verdict::{after_join, report, verdict};

use contract::AgentConfig;
use contract::agent_config::ExpectedGpus;

use crate::gpu::expected::{Count, Expectation, expectation};

/// What the phase is told of the instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Instance type, as IMDS says.
    pub instance_type: String,
    /// The GPUs that the agent config names; none: from our own table.
    pub gpus: Option<ExpectedGpus>,
    /// MIG devices that each GPU must have, 0 for none; none: any division will do.
    pub mig_devices: Option<u32>,
    /// EFA devices that the node must have; none: as many as its bus shows.
    pub efa_devices: Option<u32>,
    /// The least driver version that the pool wants.
    pub min_driver: Option<String>,
    /// Whether nvidia-peermem must be loaded.
    pub peermem: bool,
}

impl Expected {
    /// What the agent config says of this instance.
    #[must_use]
    pub fn of(instance_type: &str, config: &AgentConfig) -> Self {
        Self {
            instance_type: instance_type.to_owned(),
            gpus: config.gpus.clone(),
            mig_devices: config.mig_devices,
            efa_devices: config.efa_devices,
            min_driver: config.min_driver.clone(),
            peermem: config.peermem,
        }
    }

    /// Which GPUs there must be.
    pub(crate) fn expectation(&self) -> Expectation {
        expectation(&self.instance_type, self.gpus.as_ref())
    }
}

/// Why the phase is skipped, when it is: the instance has no GPUs.
#[must_use]
pub fn skipped(expected: &Expected) -> Option<String> {
    let expectation = expected.expectation();
    (expectation.count == Count::Exactly(0)).then(|| {
        format!("`{}` has no NVIDIA GPUs ({})", expected.instance_type, expectation.source)
    })
}
