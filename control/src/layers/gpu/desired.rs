//! The gpu layer as it should be. Pure.

use serde_json::Value;

use crate::config::spec::{DevicePlugin, PoolSpec};
use crate::kube::manifests;
use crate::layers::gpu::GpuFacts;
use crate::layers::pools::desired::{self as pools, PoolWish};
use crate::stack::{Inputs, Layer, StackError};

/// The gpu layer as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The pools.
    pub pools: Vec<PoolWish>,
    /// NVIDIA's device plugin, where a pool asks for it.
    pub objects: Vec<Value>,
}

/// The gpu layer that a fleet file asks for.
///
/// # Errors
/// Those of the pools.
pub fn desired(inputs: &Inputs, facts: &GpuFacts) -> Result<Desired, StackError> {
    Ok(Desired {
        pools: pools::desired(inputs, Layer::Gpu, &facts.pools)?,
        objects: objects(inputs),
    })
}

/// What offers GPUs, where a pool asks us to install it.
#[must_use]
pub fn objects(inputs: &Inputs) -> Vec<Value> {
    let installs = |pool: &PoolSpec| pool.device_plugin == DevicePlugin::Install;
    match inputs.spec.pools_of(Layer::Gpu).any(installs) {
        true => manifests::device_plugin(inputs.spec.device_plugin_image.as_deref()),
        false => Vec::new(),
    }
}
