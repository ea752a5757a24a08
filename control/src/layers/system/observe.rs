//! The system layer as it is.

use crate::layers::addons::observe::{AddonFact, describe};
use crate::layers::pools::observe::{self as pools, PoolsFacts};
use crate::layers::system::desired::COREDNS;
use crate::stack::{Inputs, Layer, StackError, World};

/// The system layer as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemFacts {
    /// Its pools.
    pub pools: PoolsFacts,
    /// CoreDNS.
    pub dns: Option<AddonFact>,
}

/// Reads what is there.
///
/// # Errors
/// Those of the reads.
pub async fn observe(world: &World, inputs: Option<&Inputs>) -> Result<SystemFacts, StackError> {
    Ok(SystemFacts {
        pools: pools::observe(world, Layer::System, inputs).await?,
        dns: describe(&world.clients, &world.scope.fleet, COREDNS).await?,
    })
}
