//! The add-ons as they should be. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::kube::manifests;
use crate::layers::tags;
use crate::stack::{Inputs, Layer};

/// The add-ons that come before any node, in EKS's names.
pub const BEFORE_NODES: [&str; 3] = ["vpc-cni", "kube-proxy", "eks-pod-identity-agent"];

/// The add-ons as they should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Name of the cluster.
    pub cluster: String,
    /// The add-ons.
    pub addons: Vec<AddonWish>,
    /// Objects in the cluster.
    pub objects: Vec<Value>,
}

/// An add-on. Its version is EKS's default for the cluster's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddonWish {
    /// EKS's name for it.
    pub name: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// An add-on of a fleet.
#[must_use]
pub fn addon(inputs: &Inputs, layer: Layer, name: &str) -> AddonWish {
    let tags = tags::of(&inputs.scope.fleet, layer, name, &inputs.spec.tags);
    AddonWish { name: name.to_owned(), tags }
}

/// The add-ons of a fleet that come before any node.
#[must_use]
pub fn desired(inputs: &Inputs) -> Desired {
    Desired {
        cluster: inputs.scope.fleet.clone(),
        addons: BEFORE_NODES.map(|name| addon(inputs, Layer::Addons, name)).into(),
        objects: manifests::node_reader(),
    }
}
