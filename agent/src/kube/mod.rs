//! The Kubernetes API as one node needs it: who am I, my own Node, is there a CNI, my condition.
//!
//! A small client of our own instead of the `kube` crate: `docs/decisions/0003-agent-kube-client.md`.
//! It trusts the cluster's CA alone, and its token never leaves for another host.

mod client;
mod error;
pub mod kubeconfig;
mod objects;

pub use client::{Client, Cluster};
pub use error::KubeError;
pub use objects::{Condition, Event, Identity};
