//! What the state file says of the node around its GPUs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Which of NVIDIA's two kernel modules is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Flavor {
    /// The open one.
    #[default]
    Open,
    /// The closed one: where the open one does not know the GPU.
    Proprietary,
}

/// The machine's architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Machine {
    /// Intel and AMD.
    #[default]
    #[serde(rename = "x86_64")]
    X86,
    /// Graviton and Grace.
    #[serde(rename = "aarch64")]
    Arm,
}

impl Machine {
    /// As `uname -m` says.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "aarch64",
        }
    }
}

/// How the image brings the driver: EKS's images changed in September 2026.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Setup {
    /// `nvidia-kmod-load` builds and loads one module.
    #[default]
    KmodLoad,
    /// `nvidia-driver-resolve` picks one of two trees below `/opt/nvidia`, `nvidia-setup` loads it.
    Resolve,
}

/// What an event set is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Event {
    /// Grows from event to event, so that a reader knows what it has had.
    pub number: u64,
    /// The GPU, by its ordinal.
    pub gpu: u32,
    /// What happened.
    pub kind: EventKind,
    /// The XID, or the new clock or performance state.
    pub data: u64,
}

/// Kinds of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EventKind {
    /// A corrected memory error.
    EccSingle,
    /// An uncorrected memory error.
    EccDouble,
    /// Another performance state.
    Pstate,
    /// An XID.
    Xid,
    /// Another clock.
    Clock,
}

/// An EFA device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Efa {
    /// `rdmap79s0`.
    pub name: String,
    /// PCI address.
    pub pci: String,
    /// Whether its port is up.
    #[serde(default = "yes")]
    pub up: bool,
    /// Whether it is in no IOMMU group and below a root port of its own, away from its GPU.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub apart: bool,
    /// Counters that are not 0, as `hw_counters` names them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, u64>,
}

const fn yes() -> bool {
    true
}
