//! What layers are handed: the way to the world, what is asked, and what the layers below gave.

use std::path::PathBuf;

use contract::names::{TAG_FLEET, TAG_LAYER};
use jiff::Timestamp;

use crate::aws::Clients;
use crate::aws::eks::ClusterFacts;
use crate::aws::partition::Partition;
use crate::aws::poll::Pace;
use crate::config::FleetSpec;
use crate::layers::identity::artifact::Artifact;
use crate::output::Progress;
use crate::stack::{Interrupt, Layer, Lease};

/// Which fleet, where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Name of the fleet, which is its cluster's.
    pub fleet: String,
    /// Account id.
    pub account: String,
    /// Region.
    pub region: String,
    /// Partition of the region.
    pub partition: Partition,
}

impl Scope {
    /// A fleet for tests.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        Self {
            fleet: "prod".into(),
            account: "111122223333".into(),
            region: "eu-west-1".into(),
            partition: crate::aws::partition::of_region("eu-west-1").unwrap(),
        }
    }

    /// The tags that everything of a layer carries, ours first.
    pub fn tags(&self, layer: Layer) -> impl Iterator<Item = (String, String)> {
        [
            (TAG_FLEET.to_owned(), self.fleet.clone()),
            (TAG_LAYER.to_owned(), layer.label().to_owned()),
        ]
        .into_iter()
    }
}

/// Everything that a plan is made from, beside what was observed.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Which fleet, where.
    pub scope: Scope,
    /// What is asked.
    pub spec: FleetSpec,
    /// The agent's tarball, where the fleet publishes it.
    pub artifact: Option<Artifact>,
    /// What the layers below gave.
    pub given: Given,
}

/// What layers give to those above. What is none is known only after its layer is built.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// Of the network.
    pub network: Option<NetworkGiven>,
    /// Of the identity layer.
    pub identity: Option<IdentityGiven>,
    /// Of the cluster.
    pub cluster: Option<ClusterFacts>,
}

/// What the network gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkGiven {
    /// The VPC.
    pub vpc: String,
    /// Subnets of load balancers, by zone.
    pub public_subnets: Vec<SubnetGiven>,
    /// Subnets of nodes, by zone.
    pub private_subnets: Vec<SubnetGiven>,
    /// The security group that EFA needs, where a pool has EFA.
    pub efa_group: Option<String>,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetGiven {
    /// Id.
    pub id: String,
    /// Its zone.
    pub zone: Zone,
}

/// An availability zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Zone {
    /// Its name in this account: `us-east-1a`.
    pub name: String,
    /// Its id, the same in every account: `use1-az4`.
    pub id: String,
}

impl Zone {
    /// Whether it is meant by a name or an id.
    #[must_use]
    pub fn is(&self, word: &str) -> bool {
        self.name == word || self.id == word
    }
}

/// What the identity layer gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityGiven {
    /// The control plane's role.
    pub cluster_role: String,
    /// The system pools' role.
    pub system_node_role: String,
    /// The other pools' role.
    pub gpu_node_role: String,
}

/// The way to the world.
#[derive(Clone, Debug)]
pub struct World {
    /// Which fleet, where.
    pub scope: Scope,
    /// AWS.
    pub clients: Clients,
    /// How often waits look.
    pub pace: Pace,
    /// What keeps two operators from each other.
    pub lease: Lease,
    /// Whether somebody asked us to stop.
    pub interrupt: Interrupt,
    /// What people see meanwhile.
    pub progress: Progress,
    /// Directory where what is known of replaced nodes is kept.
    pub evidence: PathBuf,
    /// When the command began: what failed before may have been mended.
    pub began: Timestamp,
}
