//! The fleet as meant: every default resolved, no value that could not be built.

use std::collections::BTreeMap;
use std::fmt;

use contract::agent_config::{GpuOffer, Repair};
use contract::names::{LABEL_NODE_TYPE, LABEL_POOL, RESOURCE_GPU};
use serde::Serialize;

use crate::config::network::NetworkSpec;
use crate::config::policy::NodePolicy;
use crate::stack::Layer;

/// A fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FleetSpec {
    /// Its name, which is the cluster's.
    pub name: String,
    /// Its region; none: the environment's.
    pub region: Option<String>,
    /// Kubernetes minor version, `1.34`.
    pub kubernetes: String,
    /// Where the agent comes from.
    pub agent: AgentSource,
    /// The network.
    pub network: NetworkSpec,
    /// Roles that are there already.
    pub roles: ExistingRoles,
    /// Image of the device plugin; none: NVIDIA's own.
    pub device_plugin_image: Option<String>,
    /// Bucket for the evidence of failed joins; none: it stays on the node.
    pub evidence_bucket: Option<String>,
    /// Tags on everything that can carry them.
    pub tags: BTreeMap<String, String>,
    /// The pools, in the file's order.
    pub pools: Vec<PoolSpec>,
}

impl FleetSpec {
    /// The pools that a layer builds.
    pub fn pools_of(&self, layer: Layer) -> impl Iterator<Item = &PoolSpec> {
        self.pools.iter().filter(move |pool| pool.class.layer() == layer)
    }
}

/// Where the agent comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AgentSource {
    /// Baked into the image.
    Baked,
    /// Fetched from there by user data.
    Fetched {
        /// `https://…` or `s3://…`.
        url: String,
        /// Checksum of the tarball.
        sha256: String,
    },
    /// Uploaded by `up` into the fleet's own bucket.
    Published,
}

/// Where a pool's image comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ImageSource {
    /// The EKS image that AWS recommends for the type.
    Recommended,
    /// This one.
    Named(String),
    /// The one that was promoted in this channel.
    Channel(String),
}

impl ImageSource {
    /// The image that is named.
    #[must_use]
    pub fn named(&self) -> Option<&str> {
        match self {
            Self::Named(id) => Some(id),
            Self::Recommended | Self::Channel(_) => None,
        }
    }

    /// The channel that it is taken from.
    #[must_use]
    pub fn channel(&self) -> Option<&str> {
        match self {
            Self::Channel(channel) => Some(channel),
            Self::Recommended | Self::Named(_) => None,
        }
    }
}

/// Roles that are there already: ARNs. What is none is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExistingRoles {
    /// The control plane's.
    pub cluster: Option<String>,
    /// The system pools'.
    pub system_node: Option<String>,
    /// The other pools'.
    pub gpu_node: Option<String>,
}

/// What a pool is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PoolClass {
    /// What the cluster itself needs.
    System,
    /// Shared services.
    Infra,
    /// Applications.
    Apps,
    /// GPU work.
    Gpu,
}

impl PoolClass {
    /// The word in fleet files.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Infra => "infra",
            Self::Apps => "apps",
            Self::Gpu => "gpu",
        }
    }

    /// The layer that builds such pools.
    #[must_use]
    pub const fn layer(self) -> Layer {
        match self {
            Self::System => Layer::System,
            Self::Infra | Self::Apps | Self::Gpu => Layer::Gpu,
        }
    }

    /// The value of the `node-type` label; workloads select by it.
    #[must_use]
    pub const fn node_type(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Infra => "infrastructure",
            Self::Apps => "applications",
            Self::Gpu => "gpu",
        }
    }
}

/// A set of like nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolSpec {
    /// Its name, unique in the fleet.
    pub name: String,
    /// What it is for.
    pub class: PoolClass,
    /// EC2 instance type.
    pub instance_type: String,
    /// How many nodes.
    pub size: Size,
    /// Size of the root volume.
    pub volume_gib: u32,
    /// What its nodes boot.
    pub image: ImageSource,
    /// How its GPUs are offered.
    pub device_plugin: DevicePlugin,
    /// Labels of its nodes, ours and the file's.
    pub labels: BTreeMap<String, String>,
    /// Taints of its nodes, ours and the file's.
    pub taints: Vec<Taint>,
    /// Tags of its own, above the fleet's.
    pub tags: BTreeMap<String, String>,
    /// How it is paid.
    pub capacity: Capacity,
    /// The only zones of its nodes, by id or name; empty: all of the fleet's.
    pub zones: Vec<String>,
    /// Whether its nodes have EFA on every network card.
    pub efa: bool,
    /// Where its nodes stand to each other.
    pub placement: Placement,
    /// Number of its nodes that must be ready for the gate to open.
    pub quorum: u32,
    /// Failed nodes that one `up` may replace.
    pub replace_failed: u32,
    /// Whether nodes repair their GPUs before they are refused.
    pub repair: Repair,
    /// How its nodes judge themselves.
    pub policy: NodePolicy,
}

impl PoolSpec {
    /// Labels and taints that a class brings, before the file's own.
    pub(crate) fn class_labels(class: PoolClass, name: &str) -> BTreeMap<String, String> {
        BTreeMap::from([
            (LABEL_NODE_TYPE.to_owned(), class.node_type().to_owned()),
            (LABEL_POOL.to_owned(), name.to_owned()),
        ])
    }

    pub(crate) fn class_taints(class: PoolClass) -> Vec<Taint> {
        match class {
            PoolClass::System | PoolClass::Apps => Vec::new(),
            PoolClass::Infra => vec![Taint::no_schedule("workload-type", "infrastructure")],
            PoolClass::Gpu => vec![Taint::no_schedule(RESOURCE_GPU, "true")],
        }
    }
}

/// How many nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Least.
    pub min: u32,
    /// Asked for.
    pub desired: u32,
    /// Most.
    pub max: u32,
}

/// How a pool's GPUs are offered to pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DevicePlugin {
    /// `control` installs NVIDIA's device plugin.
    Install,
    /// By NVIDIA's DRA driver, which somebody else installs.
    Dra,
    /// By a device plugin that somebody else installs.
    External,
    /// Not at all.
    None,
}

impl DevicePlugin {
    /// What the agent waits for.
    #[must_use]
    pub const fn offer(self) -> GpuOffer {
        match self {
            Self::Install | Self::External => GpuOffer::DevicePlugin,
            Self::Dra => GpuOffer::Dra,
            Self::None => GpuOffer::None,
        }
    }
}

/// How a pool is paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capacity {
    /// By the second.
    OnDemand,
    /// Cheaper, and taken away when somebody pays more.
    Spot,
    /// In an on-demand capacity reservation, paid whether used or not: its id.
    Reserved(String),
    /// In a capacity block, paid beforehand, from one day to another: its reservation's id.
    Block(String),
}

impl Capacity {
    /// The reservation that the nodes go into.
    #[must_use]
    pub fn reservation(&self) -> Option<&str> {
        match self {
            Self::OnDemand | Self::Spot => None,
            Self::Reserved(id) | Self::Block(id) => Some(id),
        }
    }
}

/// Where a pool's nodes stand to each other. Apart from EFA: a reservation that was not made in a
/// placement group has no place in one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Anywhere.
    Anywhere,
    /// Close together, in a group that the fleet makes.
    Cluster,
    /// In a group of this name, which is there already.
    Existing(String),
}

/// A taint that nodes register with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

impl Taint {
    fn no_schedule(key: &str, value: &str) -> Self {
        Self { key: key.into(), value: value.into(), effect: "NoSchedule".into() }
    }
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.is_empty() {
            true => write!(f, "{}:{}", self.key, self.effect),
            false => write!(f, "{}={}:{}", self.key, self.value, self.effect),
        }
    }
}
