//! The fleet's layers in order: the one place that owns order, meaning, needs and gives.
//!
//! [`driver`] walks them: observe → plan → apply → gate, and backwards for `down`. What a layer does
//! stands in [`crate::layers`]; what passes between them is [`world::Given`].

pub mod driver;
pub mod error;
pub mod estimate;
pub mod gate;
pub mod interrupt;
pub mod lease;
pub mod plan;
pub mod report;
pub mod world;

pub use error::StackError;
pub use gate::Gate;
pub use interrupt::Interrupt;
pub use lease::Lease;
pub use plan::{Action, Applied, Step, Storey};
pub use world::{Given, Inputs, Scope, World};

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// One storey of the fleet. The order of the variants is the order in which they are built.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// VPC, subnets per zone, routes, NAT.
    Network,
    /// Roles per trust boundary, the node's rights, the agent's bucket.
    Identity,
    /// EKS control plane and access entries.
    Cluster,
    /// vpc-cni, kube-proxy, pod identity: before any node.
    Addons,
    /// Baseline nodes, then CoreDNS.
    System,
    /// The other pools: launch template, nodes, device plugin.
    Gpu,
}

impl Layer {
    /// Every layer, bottom up.
    pub const ALL: [Self; 6] =
        [Self::Network, Self::Identity, Self::Cluster, Self::Addons, Self::System, Self::Gpu];

    /// The layer's name everywhere: `network`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Identity => "identity",
            Self::Cluster => "cluster",
            Self::Addons => "addons",
            Self::System => "system",
            Self::Gpu => "gpu",
        }
    }

    /// What the layer needs of those below, in one line.
    #[must_use]
    pub const fn needs(self) -> &'static str {
        match self {
            Self::Network => "nothing",
            Self::Identity => "nothing; the account's id",
            Self::Cluster => "subnets, the cluster's role",
            Self::Addons => "an ACTIVE cluster",
            Self::System => "the CNI's add-on, the node role, private subnets",
            Self::Gpu => "CoreDNS on system nodes, the node role, private subnets",
        }
    }

    /// What the layer gives to those above, in one line.
    #[must_use]
    pub const fn gives(self) -> &'static str {
        match self {
            Self::Network => "VPC, public and private subnets",
            Self::Identity => "role ARNs, the agent's place",
            Self::Cluster => "endpoint, CA, service CIDR, security group",
            Self::Addons => "networking for nodes that register",
            Self::System => "a place for system pods",
            Self::Gpu => "proven GPU workers",
        }
    }

    /// What the layer's gate proves, checked live and never remembered.
    #[must_use]
    pub const fn proves(self) -> &'static str {
        match self {
            Self::Network => "NAT available, default routes, free addresses for the asked size",
            Self::Identity => "roles and the agent visible in three consecutive reads",
            Self::Cluster => "ACTIVE, TLS with its CA, an authenticated and authorised call",
            Self::Addons => "add-ons ACTIVE",
            Self::System => "nodes Ready, aws-node and kube-proxy on them, CoreDNS available",
            Self::Gpu => "every node Ready with its GPUs proven and on offer, or a named reason",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_bottom_up_and_complete() {
        assert!(Layer::ALL.is_sorted());
        assert_eq!(Layer::ALL.len(), Layer::Gpu as usize + 1);
    }

    #[test]
    fn label_is_the_wire_name() {
        for layer in Layer::ALL {
            assert_eq!(serde_json::to_value(layer).unwrap(), layer.label());
        }
    }
}
