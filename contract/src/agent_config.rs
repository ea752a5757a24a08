//! What `control` writes for the agent: `/etc/rollcall/agent.yaml`, carried in the user data.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::phase::Phase;
use crate::reason::ReasonName;

/// The agent's configuration, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentConfig {
    /// Version of this format: 1.
    pub version: u32,
    /// Name of the cluster, which is the fleet's.
    pub cluster: String,
    /// Name of the pool.
    pub pool: String,
    /// Number of nodes that the pool was asked to have: scales the window in which reports spread.
    #[serde(default = "one")]
    pub pool_size: u32,
    /// The GPUs that the instance type has. None: from the agent's own table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<ExpectedGpus>,
    /// MIG devices that each GPU must have; 0: MIG must be off. None: any division will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig_devices: Option<u32>,
    /// EFA devices that the node must have. None: as many as its PCI bus shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efa_devices: Option<u32>,
    /// The least driver version that the pool wants, `580` or `580.95`: an older one is said, and keeps
    /// nobody out. None: any that knows the GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_driver: Option<String>,
    /// Whether each GPU must fill and copy some memory through CUDA before the node may join. It takes
    /// a few seconds, and no toolkit.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cuda_canary: bool,
    /// Whether programs reach other nodes' GPUs through nvidia-peermem. EFA needs no such module.
    #[serde(default, skip_serializing_if = "is_default")]
    pub peermem: bool,
    /// How the cluster offers GPUs to pods.
    #[serde(default)]
    pub gpu_offer: GpuOffer,
    /// How the CNI gets onto the node.
    #[serde(default)]
    pub cni: CniKind,
    /// Where the agent is fetched from; none where it is baked into the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install: Option<Install>,
    /// Deadlines in seconds; absent ones are the design's.
    #[serde(default, skip_serializing_if = "Deadlines::is_default")]
    pub deadlines: Deadlines,
    /// Whether gates close or only say that they would.
    #[serde(default, skip_serializing_if = "is_default")]
    pub enforce: Enforce,
    /// Exceptions to `enforce`, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub enforce_reasons: BTreeMap<ReasonName, Enforce>,
    /// Whether the agent repairs before it refuses.
    #[serde(default, skip_serializing_if = "is_default")]
    pub repair: Repair,
    /// Bucket for the evidence of failed joins; none: it stays on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence_bucket: Option<String>,
    /// What happens when the agent itself cannot run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_agent_fault: OnAgentFault,
    /// When the Capacity Block that the pool runs in ends, RFC 3339: EC2 tells nodes nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_ends: Option<String>,
    /// What the node gets beside what its NodeConfig says.
    #[serde(default, skip_serializing_if = "is_default")]
    pub node: NodeAdditions,
    /// What single XIDs mean on this pool's nodes, where the agent's own table is not followed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xids: BTreeMap<u32, XidRule>,
    /// Whether a GPU that asks for a reset gets one while the node is in use, once nothing runs on it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gpu_reset: GpuReset,
    /// Where the watch shows single reasons, when not where the agent's own table says: a new check
    /// can be watched as an event for a while, a soft one made to count.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub show_reasons: BTreeMap<ReasonName, Show>,
}

/// What the watch needs of the configuration. The join hands it over in [`WATCH_SETTINGS_PATH`]: the
/// file itself is root's alone.
///
/// [`WATCH_SETTINGS_PATH`]: crate::names::WATCH_SETTINGS_PATH
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WatchSettings {
    /// See [`AgentConfig::gpus`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<ExpectedGpus>,
    /// See [`AgentConfig::mig_devices`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig_devices: Option<u32>,
    /// See [`AgentConfig::efa_devices`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub efa_devices: Option<u32>,
    /// See [`AgentConfig::min_driver`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_driver: Option<String>,
    /// See [`AgentConfig::peermem`].
    pub peermem: bool,
    /// See [`AgentConfig::xids`].
    pub xids: BTreeMap<u32, XidRule>,
    /// See [`AgentConfig::gpu_reset`].
    pub gpu_reset: GpuReset,
    /// See [`AgentConfig::show_reasons`].
    pub show_reasons: BTreeMap<ReasonName, Show>,
}

/// Where the watch shows a reason after the join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Show {
    /// In the Node condition, which repairers act on.
    Condition,
    /// As an event on the Node, and no more.
    Event,
}

/// What an XID means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct XidRule {
    /// What follows from it.
    pub class: XidClass,
    /// How often it must come on one GPU for that; before, it is an event.
    #[serde(default = "one")]
    pub threshold: u32,
    /// Within how many seconds; within the boot when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<u64>,
}

/// What follows from an XID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum XidClass {
    /// Nothing: it is counted.
    Info,
    /// An event on the Node.
    Event,
    /// An event with the process and its pod: the application's fault until it repeats.
    App,
    /// A link of the GPU needs a reset.
    Link,
    /// The GPU needs a reset.
    Reset,
    /// The node needs a reboot.
    Reboot,
    /// The instance needs to be replaced.
    Replace,
}

impl XidClass {
    /// Every class, the mildest first.
    pub const ALL: [Self; 7] =
        [Self::Info, Self::Event, Self::App, Self::Link, Self::Reset, Self::Reboot, Self::Replace];

    /// The class's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Event => "event",
            Self::App => "app",
            Self::Link => "link",
            Self::Reset => "reset",
            Self::Reboot => "reboot",
            Self::Replace => "replace",
        }
    }

    /// Whether the node's condition shows it.
    #[must_use]
    pub const fn is_fatal(self) -> bool {
        matches!(self, Self::Link | Self::Reset | Self::Reboot | Self::Replace)
    }
}

/// Whether the agent resets GPUs after the join.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuReset {
    /// It does not.
    #[default]
    Off,
    /// It does, where the driver asks for it and nothing runs there.
    On,
}

/// What the agent adds to the NodeConfig, through `/etc/eks/nodeadm.d`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeAdditions {
    /// Labels that kubelet registers with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Taints that kubelet registers with, beside those that the NodeConfig asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub startup_taints: Vec<NodeTaint>,
    /// Fields of kubelet's configuration.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub kubelet_config: serde_json::Map<String, serde_json::Value>,
}

/// A taint as Kubernetes writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeTaint {
    /// Its key.
    pub key: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Whom it keeps away.
    pub effect: TaintEffect,
}

/// Whom a taint keeps away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaintEffect {
    /// New pods.
    NoSchedule,
    /// New pods, unless there is no other place.
    PreferNoSchedule,
    /// Every pod.
    NoExecute,
}

impl TaintEffect {
    /// The effect's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}

const fn one() -> u32 {
    1
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The GPUs that an instance type has, from DescribeInstanceTypes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExpectedGpus {
    /// Number of GPUs; 0 skips the drivers phase.
    pub count: u32,
    /// Model as EC2 names it: `H100`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Memory of one GPU in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
}

/// How the cluster offers GPUs to pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GpuOffer {
    /// The NVIDIA device plugin: `nvidia.com/gpu` becomes allocatable.
    #[default]
    DevicePlugin,
    /// The NVIDIA DRA driver: ResourceSlices.
    Dra,
    /// Nothing offers them, and nothing is waited for.
    None,
}

impl GpuOffer {
    /// Its name on the wire, and as the value of a tag.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::DevicePlugin => "device-plugin",
            Self::Dra => "dra",
            Self::None => "none",
        }
    }

    /// What a tag's value says; without one, a device plugin.
    #[must_use]
    pub fn of_tag(value: Option<&str>) -> Self {
        match value {
            Some("dra") => Self::Dra,
            Some("none") => Self::None,
            _ => Self::DevicePlugin,
        }
    }
}

/// How the CNI gets onto the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CniKind {
    /// The Amazon VPC CNI: a pod that needs a registered node.
    #[default]
    VpcCni,
    /// Installed on the host: waited for before the node registers.
    Host,
}

/// Where the agent's tarball is, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Install {
    /// `https://…`, or `s3://bucket/key` read with the instance's role.
    pub url: String,
    /// SHA-256 of the tarball, in lower-case hex.
    pub sha256: String,
}

/// Deadlines in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Deadlines {
    /// From launch to registration; 600 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration_seconds: Option<u64>,
    /// How long cloud-init's last stage may run, counted from its start; 300 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init_seconds: Option<u64>,
    /// A phase's own cap; [`Phase::cap`] when absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub phase_seconds: BTreeMap<Phase, u64>,
}

impl Deadlines {
    /// From launch to registration when nothing else is said: Karpenter gives up at 900 s.
    pub const REGISTRATION_SECONDS: u64 = 600;

    /// How long user scripts may take when nothing else is said.
    pub const CLOUD_INIT_SECONDS: u64 = 300;

    /// How long cloud-init's last stage may run.
    #[must_use]
    pub fn cloud_init(&self) -> Duration {
        Duration::from_secs(self.cloud_init_seconds.unwrap_or(Self::CLOUD_INIT_SECONDS))
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a closed gate keeps the node out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforce {
    /// A closed gate keeps kubelet from starting.
    #[default]
    Gate,
    /// The node joins, and the report says what would have kept it out.
    Observe,
}

/// Whether the agent repairs before it refuses: units are restarted, the driver is loaded anew, GPUs
/// are reset, and at last the node reboots once, all before kubelet runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Repair {
    /// It does not.
    Off,
    /// It does not, and the report says what it would have done.
    #[default]
    Observe,
    /// It does.
    On,
}

/// What happens when the agent itself cannot run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnAgentFault {
    /// The node joins through the stock nodeadm-run.
    #[default]
    Open,
    /// The node stays out.
    Closed,
}

impl AgentConfig {
    /// A configuration that names only what has no default.
    #[must_use]
    pub fn new(cluster: impl Into<String>, pool: impl Into<String>) -> Self {
        Self {
            version: 1,
            cluster: cluster.into(),
            pool: pool.into(),
            pool_size: 1,
            gpus: None,
            mig_devices: None,
            efa_devices: None,
            min_driver: None,
            cuda_canary: false,
            peermem: false,
            repair: Repair::default(),
            gpu_offer: GpuOffer::default(),
            cni: CniKind::default(),
            install: None,
            deadlines: Deadlines::default(),
            enforce: Enforce::default(),
            enforce_reasons: BTreeMap::new(),
            evidence_bucket: None,
            on_agent_fault: OnAgentFault::default(),
            capacity_ends: None,
            node: NodeAdditions::default(),
            xids: BTreeMap::new(),
            gpu_reset: GpuReset::default(),
            show_reasons: BTreeMap::new(),
        }
    }

    /// What the watch needs of it.
    #[must_use]
    pub fn watch_settings(&self) -> WatchSettings {
        WatchSettings {
            gpus: self.gpus.clone(),
            mig_devices: self.mig_devices,
            efa_devices: self.efa_devices,
            min_driver: self.min_driver.clone(),
            peermem: self.peermem,
            xids: self.xids.clone(),
            gpu_reset: self.gpu_reset,
            show_reasons: self.show_reasons.clone(),
        }
    }

    /// What the format alone does not say: every problem, each with the path of its field.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut demand = |holds: bool, problem: String| {
            if !holds {
                found.push(problem);
            }
        };
        demand(self.version == 1, format!("`version` is {}, and we know 1", self.version));
        for (field, name) in [("cluster", &self.cluster), ("pool", &self.pool)] {
            demand(!name.trim().is_empty(), format!("`{field}` is empty"));
        }
        demand(self.pool != "lease", "`pool` cannot be `lease`".into());
        let seconds = self.deadlines.registration_seconds;
        demand(seconds != Some(0), "`deadlines.registrationSeconds` is 0".into());
        for (phase, seconds) in &self.deadlines.phase_seconds {
            demand(*seconds > 0, format!("`deadlines.phaseSeconds.{phase}` is 0"));
        }
        if let Some(install) = &self.install {
            let is_url = ["https://", "s3://"].iter().any(|scheme| install.url.starts_with(scheme));
            demand(is_url, "`install.url` is neither https:// nor s3://".into());
            let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            let is_sum = install.sha256.len() == 64 && install.sha256.bytes().all(is_hex);
            demand(is_sum, "`install.sha256` is not 64 digits of lower-case hex".into());
        }
        if let Some(version) = &self.min_driver {
            let is_version = version.split('.').all(|part| part.parse::<u32>().is_ok());
            demand(is_version, "`minDriver` is no version, as `580` or `580.95` are".into());
        }
        let cloud_init = self.deadlines.cloud_init_seconds;
        demand(cloud_init != Some(0), "`deadlines.cloudInitSeconds` is 0".into());
        for (code, rule) in &self.xids {
            demand(rule.threshold > 0, format!("`xids.{code}.threshold` is 0"));
            let has_window = rule.window_seconds != Some(0);
            demand(has_window, format!("`xids.{code}.windowSeconds` is 0"));
        }
        for (number, taint) in self.node.startup_taints.iter().enumerate() {
            let is_key = !taint.key.is_empty() && !taint.key.contains([',', ':', '=', ' ']);
            demand(is_key, format!("`node.startupTaints[{number}].key` is no key"));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_golden_file() {
        let golden = include_str!("../golden/agent_config.yaml");
        let mut config = AgentConfig::new("prod", "h100");
        config.pool_size = 4;
        config.gpus =
            Some(ExpectedGpus { count: 8, model: Some("H100".into()), memory_mib: Some(81920) });
        config.install =
            Some(Install { url: "s3://bucket/agent.tar.gz".into(), sha256: "ab".repeat(32) });
        config.deadlines.cloud_init_seconds = Some(900);
        config.deadlines.phase_seconds.insert(Phase::Drivers, 120);
        config.gpu_reset = GpuReset::On;
        let rule = XidRule { class: XidClass::Replace, threshold: 2, window_seconds: Some(86_400) };
        config.xids.insert(63, rule);
        assert_eq!(serde_yaml::from_str::<AgentConfig>(golden).unwrap(), config);
        assert_eq!(serde_yaml::to_string(&config).unwrap(), golden);
    }

    #[test]
    fn every_problem_is_named_with_its_path() {
        assert_eq!(AgentConfig::new("prod", "h100").problems(), [""; 0]);
        let text = "version: 2\ncluster: ' '\npool: lease\nminDriver: newest\ninstall: {url: 'http://x', sha256: AB}\n\
            deadlines: {registrationSeconds: 0, phaseSeconds: {drivers: 0}}\n\
            node: {startupTaints: [{key: 'a=b', effect: NoSchedule}]}\n\
            xids: {63: {class: replace, threshold: 0}}\n";
        let problems = serde_yaml::from_str::<AgentConfig>(text).unwrap().problems();
        for (problem, says) in problems.iter().zip([
            "`version` is 2",
            "`cluster`",
            "`pool` cannot",
            "registrationSeconds",
            "`deadlines.phaseSeconds.drivers`",
            "`install.url`",
            "`install.sha256`",
            "`minDriver`",
            "`xids.63.threshold`",
            "`node.startupTaints[0].key`",
        ]) {
            assert!(problem.contains(says), "{problem}");
        }
        assert_eq!(problems.len(), 10);
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let text = "version: 1\ncluster: prod\npool: h100\ncolour: red\n";
        let error = serde_yaml::from_str::<AgentConfig>(text).unwrap_err().to_string();
        assert!(error.contains("colour"), "{error}");
    }

    #[test]
    fn the_least_that_can_be_said() {
        let config: AgentConfig =
            serde_yaml::from_str("version: 1\ncluster: prod\npool: h100\n").unwrap();
        assert_eq!(config, AgentConfig::new("prod", "h100"));
    }
}
