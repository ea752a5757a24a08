//! The Kubernetes side of the fleet, as plain data.
//!
//! [`mod@connect`] makes a client that trusts the cluster's CA alone and whose errors say at which step
//! the way ended; its tokens are those of [`eks_token`]. [`nodes`], [`workloads`] and [`events`] read;
//! [`kubeconfig`] is kubectl's way in. [`manifests`] is what `control` itself puts into a cluster,
//! [`apply`] puts it there; [`claims`] is what others' objects hold of the account.

pub mod apply;
pub mod claims;
pub mod connect;
pub mod events;
pub mod kubeconfig;
pub mod manifests;
pub mod nodes;
pub mod workloads;

pub use apply::Standing;
pub use connect::{Cause, Cluster, Identity, KubeError, connect};
pub use nodes::{ConditionFacts, NodeFacts};
pub use workloads::{DaemonSetFacts, DeploymentFacts, PodFacts};
