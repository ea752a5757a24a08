//! The fleet file as typed, after [`crate::config::schema`] has taken out what has the wrong shape:
//! everything may be absent here.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The fleet file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RawFleet {
    pub(crate) api_version: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) kubernetes: Option<String>,
    pub(crate) agent: Option<RawAgent>,
    pub(crate) network: Option<RawNetwork>,
    pub(crate) roles: Option<RawRoles>,
    pub(crate) device_plugin_image: Option<String>,
    pub(crate) evidence_bucket: Option<String>,
    pub(crate) image: Option<RawImage>,
    pub(crate) tags: Option<BTreeMap<String, String>>,
    pub(crate) pools: Option<Vec<RawPool>>,
}

/// What a pool boots. Untagged without harm: the shape has been checked, and what is wrong was said.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum RawImage {
    Id(String),
    Chosen { channel: Option<String> },
}

/// Where the agent comes from: exactly one of the three ways.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RawAgent {
    pub(crate) baked: Option<bool>,
    pub(crate) publish: Option<bool>,
    pub(crate) url: Option<String>,
    pub(crate) sha256: Option<String>,
}

/// The network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RawNetwork {
    pub(crate) cidr: Option<String>,
    pub(crate) zones: Option<u64>,
    pub(crate) zone_ids: Option<Vec<Option<String>>>,
    pub(crate) nat: Option<String>,
    pub(crate) endpoints: Option<String>,
    pub(crate) existing: Option<RawExisting>,
}

/// A network that is there already.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RawExisting {
    pub(crate) vpc: Option<String>,
    pub(crate) private_subnets: Option<Vec<Option<String>>>,
    pub(crate) public_subnets: Option<Vec<Option<String>>>,
}

/// Roles that are there already, by ARN.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RawRoles {
    pub(crate) cluster: Option<String>,
    pub(crate) system_node: Option<String>,
    pub(crate) gpu_node: Option<String>,
}

/// One pool.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RawPool {
    pub(crate) name: Option<String>,
    pub(crate) class: Option<String>,
    pub(crate) instance_type: Option<String>,
    pub(crate) size: Option<RawSize>,
    #[serde(rename = "volumeGiB")]
    pub(crate) volume_gib: Option<u64>,
    pub(crate) image: Option<RawImage>,
    pub(crate) device_plugin: Option<String>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) taints: Option<Vec<RawTaint>>,
    pub(crate) tags: Option<BTreeMap<String, String>>,
    pub(crate) capacity: Option<String>,
    pub(crate) reservation: Option<String>,
    pub(crate) zones: Option<Vec<Option<String>>>,
    pub(crate) efa: Option<bool>,
    pub(crate) placement: Option<String>,
    pub(crate) placement_group: Option<String>,
    pub(crate) replace_failed: Option<u64>,
    pub(crate) quorum: Option<u64>,
    pub(crate) repair: Option<String>,
    pub(crate) enforce: Option<String>,
    pub(crate) enforce_reasons: Option<BTreeMap<String, Option<String>>>,
    pub(crate) on_agent_fault: Option<String>,
    pub(crate) gpu: Option<RawGpu>,
}

/// What a pool's GPUs must be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RawGpu {
    pub(crate) min_driver: Option<String>,
    pub(crate) cuda_canary: Option<bool>,
    pub(crate) mig_devices: Option<u64>,
    pub(crate) peermem: Option<bool>,
    pub(crate) reset: Option<String>,
    pub(crate) xids: Option<BTreeMap<u64, Option<RawXid>>>,
    pub(crate) show_reasons: Option<BTreeMap<String, Option<String>>>,
}

/// What an XID means.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RawXid {
    pub(crate) class: Option<String>,
    pub(crate) threshold: Option<u64>,
    pub(crate) window_seconds: Option<u64>,
}

/// The size of a pool.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RawSize {
    pub(crate) min: Option<u64>,
    pub(crate) desired: Option<u64>,
    pub(crate) max: Option<u64>,
}

/// A taint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RawTaint {
    pub(crate) key: Option<String>,
    pub(crate) value: Option<String>,
    pub(crate) effect: Option<String>,
}
