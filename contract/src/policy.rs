//! A pool's policy, which `control` keeps in Parameter Store and a node reads before a gate closes:
//! a gate that everybody fails must not black out the fleet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::agent_config::Enforce;
use crate::reason::ReasonName;

/// Version of the policy's format.
pub const VERSION: u32 = 1;

/// The policy of one pool. Readers accept unknown fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolPolicy {
    /// Version of this format, 1.
    pub version: u32,
    /// What goes before the agent config's `enforce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforce: Option<Enforce>,
    /// What goes before the agent config's `enforceReasons`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub enforce_reasons: BTreeMap<ReasonName, Enforce>,
    /// Reasons that no longer keep a node of the pool out, because too many failed with them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub breakers: BTreeMap<ReasonName, Breaker>,
}

/// An open breaker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Breaker {
    /// When it was opened, RFC 3339.
    #[serde(default)]
    pub opened: String,
    /// How many nodes had failed with the reason.
    #[serde(default)]
    pub failed: u32,
    /// Of how many.
    #[serde(default)]
    pub nodes: u32,
}

impl Default for PoolPolicy {
    fn default() -> Self {
        Self {
            version: VERSION,
            enforce: None,
            enforce_reasons: BTreeMap::new(),
            breakers: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    #[test]
    fn matches_the_golden_file() {
        let golden = include_str!("../golden/pool_policy.json");
        let mut policy = PoolPolicy { enforce: Some(Enforce::Observe), ..PoolPolicy::default() };
        policy.enforce_reasons.insert(Reason::GpuLost.into(), Enforce::Gate);
        let opened = "2026-11-20T20:00:00Z".into();
        let breaker = Breaker { opened, failed: 40, nodes: 64 };
        policy.breakers.insert(Reason::GpuCountShort.into(), breaker);
        assert_eq!(serde_json::from_str::<PoolPolicy>(golden).unwrap(), policy);
        assert_eq!(serde_json::to_string_pretty(&policy).unwrap() + "\n", golden);
    }

    #[test]
    fn newer_writers_are_understood() {
        let text = r#"{"version":1,"colour":"red","breakers":{"NotYetKnown":{"why":"x"}}}"#;
        let policy: PoolPolicy = serde_json::from_str(text).unwrap();
        assert_eq!(policy.breakers.len(), 1);
    }
}
