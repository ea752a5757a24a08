//! The system layer as it should be. Pure.

use crate::layers::addons::desired::{AddonWish, addon};
use crate::layers::pools::desired::{self as pools, PoolWish};
use crate::layers::system::SystemFacts;
use crate::stack::{Inputs, Layer, StackError};

/// EKS's name for the add-on.
pub const COREDNS: &str = "coredns";

/// The system layer as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The system pools.
    pub pools: Vec<PoolWish>,
    /// CoreDNS.
    pub dns: AddonWish,
}

/// The system layer that a fleet file asks for.
///
/// # Errors
/// Those of the pools.
pub fn desired(inputs: &Inputs, facts: &SystemFacts) -> Result<Desired, StackError> {
    Ok(Desired {
        pools: pools::desired(inputs, Layer::System, &facts.pools)?,
        dns: addon(inputs, Layer::System, COREDNS),
    })
}
