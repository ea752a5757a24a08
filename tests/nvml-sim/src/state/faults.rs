//! What the state file says is wrong.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is wrong with one GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct GpuFault {
    /// It has fallen off the bus: every call on it gives `GPU_IS_LOST`.
    pub lost: bool,
    /// It wants a reset: every call on it gives `RESET_REQUIRED`.
    pub reset_required: bool,
    /// Every call on it gives this code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    /// No call on it comes back.
    pub hang: bool,
    /// While one does not, it holds the library's lock: no other call comes back either.
    pub holds_lock: bool,
    /// Time that a call on it takes.
    pub delay_ms: u64,
    /// Its texts are bytes that are no UTF-8.
    pub garbage: bool,
    /// Its memory gives back other bytes than it was given.
    pub wrong_bytes: bool,
}

/// Faults of the library as a whole. Calls are named as in `nvml.h` and `cuda.h`; `*` is every call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Faults {
    /// Return code of the initialisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<u32>,
    /// Calls that do not come back while this stands. `*` also holds the library's lock, as a stuck
    /// driver does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hang: Vec<String>,
    /// Time that every call takes.
    #[serde(skip_serializing_if = "is_zero")]
    pub delay_ms: u64,
    /// Time that single calls take, in milliseconds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub delays: BTreeMap<String, u64>,
    /// Now and then a call takes its time, as on a healthy node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow: Option<Slow>,
    /// Return codes of single calls.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub codes: BTreeMap<String, u32>,
    /// Number that the device count gives, whatever there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Faults {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Every so many calls of a process, one is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Slow {
    /// How many calls make one slow one.
    pub every: u32,
    /// Time that it takes.
    pub ms: u64,
}
