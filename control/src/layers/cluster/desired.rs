//! The control plane as it should be. Pure.

use std::collections::BTreeMap;

use contract::names::TAG_SPEC;

use crate::layers::names::spec_hash;
use crate::layers::tags;
use crate::stack::{Inputs, Layer};

/// The control plane as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Name of the cluster, which is the fleet's.
    pub name: String,
    /// Kubernetes minor version.
    pub version: String,
    /// What the layers below gave; none while they are not built.
    pub foundation: Option<Foundation>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// What the control plane stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foundation {
    /// ARN of its role.
    pub role: String,
    /// Subnets for its network interfaces: one of each kind in every zone.
    pub subnets: Vec<String>,
}

/// The control plane that a fleet file asks for.
#[must_use]
pub fn desired(inputs: &Inputs) -> Desired {
    let (scope, spec) = (&inputs.scope, &inputs.spec);
    let mut tags = tags::of(&scope.fleet, Layer::Cluster, &scope.fleet, &spec.tags);
    tags.insert(TAG_SPEC.into(), spec_hash(&["cluster", &spec.kubernetes]));
    let given = &inputs.given;
    let foundation =
        given.identity.as_ref().zip(given.network.as_ref()).map(|(identity, network)| Foundation {
            role: identity.cluster_role.clone(),
            subnets: network
                .private_subnets
                .iter()
                .chain(&network.public_subnets)
                .map(|subnet| subnet.id.clone())
                .collect(),
        });
    Desired { name: scope.fleet.clone(), version: spec.kubernetes.clone(), foundation, tags }
}
