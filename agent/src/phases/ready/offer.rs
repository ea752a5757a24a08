//! GPUs on offer to pods: one question, and an answer for each way in which they are offered.

use contract::agent_config::GpuOffer;
use contract::names::{DRA_DRIVER, RESOURCE_GPU};
use contract::offer::Devices;
use contract::{ErrorChain, Finding, Phase, Reason, dra};
use serde_json::Value;

use super::Facts;
use crate::host::Deadline;
use crate::kube::{Client, KubeError};

/// What the ResourceSlices of the node's GPU driver hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Slices {
    /// Nobody has looked: no GPUs are offered.
    #[default]
    NotAsked,
    /// We may not read them, or the cluster serves none.
    Unknown(String),
    /// They could not be read this time.
    Unread(String),
    /// They were read.
    Seen {
        /// All GPUs in them.
        capacity: u32,
        /// Those without a taint that keeps pods away.
        allocatable: u32,
    },
}

impl Slices {
    pub(super) fn of(read: Result<Option<Vec<Value>>, KubeError>, node: &str) -> Self {
        match read {
            Ok(Some(items)) => {
                let (capacity, allocatable) = dra::gpus(&items, node);
                Self::Seen { capacity, allocatable }
            }
            Ok(None) => Self::Unknown("the cluster serves no `resource.k8s.io/v1`".into()),
            Err(error @ KubeError::Forbidden(_)) => Self::Unknown(ErrorChain(&error).to_string()),
            Err(error) => Self::Unread(ErrorChain(&error).to_string()),
        }
    }
}

/// Looks at the node's ResourceSlices. Where a device plugin offers GPUs too: they may be on offer twice.
pub async fn look_at_slices(
    kube: &Client,
    name: &str,
    offer: GpuOffer,
    deadline: Deadline,
) -> Slices {
    match offer {
        GpuOffer::Dra | GpuOffer::DevicePlugin => {
            Slices::of(kube.resource_slices(name, deadline).await, name)
        }
        GpuOffer::None => Slices::NotAsked,
    }
}

/// A way in which GPUs are offered.
pub(super) trait Offering: Sync {
    /// How many GPUs pods can have this way; none: that is not known.
    fn on_offer(&self, facts: &Facts) -> Option<u32>;

    /// What is missing of these; none: all are on offer, or nobody can know.
    fn missing(&self, facts: &Facts, devices: Devices) -> Option<(Reason, String)>;
}

/// The answer for a way.
pub(super) const fn of(offer: GpuOffer) -> &'static dyn Offering {
    match offer {
        GpuOffer::DevicePlugin => &DevicePlugin,
        GpuOffer::Dra => &ResourceSlices,
        GpuOffer::None => &Nothing,
    }
}

/// GPUs on offer in two ways at once.
pub(super) fn twice(facts: &Facts) -> Option<Finding> {
    let plugged = DevicePlugin.on_offer(facts).filter(|count| *count > 0)?;
    let sliced = ResourceSlices.on_offer(facts).filter(|count| *count > 0)?;
    let what = format!("{plugged} `{RESOURCE_GPU}` and {sliced} GPUs in ResourceSlices");
    Some(Finding::new(Reason::GpuAdvertisedTwice, Phase::Ready, what))
}

/// NVIDIA's device plugin: extended resources of the Node.
struct DevicePlugin;

impl Offering for DevicePlugin {
    fn on_offer(&self, facts: &Facts) -> Option<u32> {
        facts.allocatable.gpus
    }

    fn missing(&self, facts: &Facts, devices: Devices) -> Option<(Reason, String)> {
        let Devices { gpus, divided, parts } = devices;
        let offered = facts.allocatable.gpus.unwrap_or_default();
        let ever = facts.capacity.gpus.unwrap_or_default();
        if devices.plugged(facts.allocatable).is_whole() {
            None
        } else if facts.allocatable.is_empty() && facts.capacity.is_empty() {
            let what = format!("no `{RESOURCE_GPU}` on offer, NVML sees {gpus} GPUs");
            Some((Reason::DevicePluginAbsent, what))
        } else if divided > 0 {
            let by_profile = facts.allocatable.parts;
            let what = format!(
                "{offered} GPUs and {by_profile} MIG devices are allocatable, NVML sees {gpus} GPUs, {divided} of them in {parts} MIG devices"
            );
            Some((Reason::GpuAllocatableShort, what))
        } else {
            let what = format!("{offered} of {gpus} GPUs are allocatable (capacity {ever})");
            Some((Reason::GpuAllocatableShort, what))
        }
    }
}

/// NVIDIA's DRA driver: ResourceSlices. What we may not read holds nobody up.
struct ResourceSlices;

impl Offering for ResourceSlices {
    fn on_offer(&self, facts: &Facts) -> Option<u32> {
        match facts.slices {
            Slices::Seen { allocatable, .. } => Some(allocatable),
            Slices::NotAsked | Slices::Unknown(_) | Slices::Unread(_) => None,
        }
    }

    fn missing(&self, facts: &Facts, devices: Devices) -> Option<(Reason, String)> {
        // Divided ones are not GPUs there, and their parts may be cut anew for each claim.
        let gpus = devices.gpus - devices.divided;
        match &facts.slices {
            _ if gpus == 0 => None,
            Slices::NotAsked | Slices::Unknown(_) => None,
            Slices::Unread(why) => {
                Some((Reason::DevicePluginAbsent, format!("ResourceSlices cannot be read: {why}")))
            }
            Slices::Seen { allocatable, .. } if devices.sliced(*allocatable).is_whole() => None,
            Slices::Seen { capacity: 0, .. } => {
                let what =
                    format!("no GPU in a ResourceSlice of `{DRA_DRIVER}`, NVML sees {gpus} GPUs");
                Some((Reason::DevicePluginAbsent, what))
            }
            Slices::Seen { capacity, allocatable } => {
                let what = format!(
                    "{allocatable} of {gpus} GPUs are allocatable by ResourceSlices (in them: {capacity})"
                );
                Some((Reason::GpuAllocatableShort, what))
            }
        }
    }
}

/// Nothing offers them, and nothing is waited for.
struct Nothing;

impl Offering for Nothing {
    fn on_offer(&self, _: &Facts) -> Option<u32> {
        None
    }

    fn missing(&self, _: &Facts, _: Devices) -> Option<(Reason, String)> {
        None
    }
}
