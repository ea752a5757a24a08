//! The fleet's layers in order: the one place that owns order, meaning, needs and gives.

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

    /// What the layer's gate proves, checked live and never remembered.
    #[must_use]
    pub const fn proves(self) -> &'static str {
        match self {
            Self::Network => "NAT available, default routes, free addresses for the asked size",
            Self::Identity => "roles visible in three consecutive reads",
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
