//! From the gpu layer as it is to the gpu layer as it should be. Pure.

use serde_json::Value;

use crate::layers::addons::observe::label;
use crate::layers::gpu::GpuFacts;
use crate::layers::gpu::desired::Desired;
use crate::layers::pools::plan as pools;
use crate::stack::{Scope, Step};

/// What a step of this layer does.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Something about a pool.
    Pool(pools::Op),
    /// Applies an object to the cluster.
    Apply(Value),
}

/// The steps up. What offers GPUs comes first: a node is not ready without it.
#[must_use]
pub fn plan(desired: &Desired, facts: &GpuFacts) -> Vec<Step<Op>> {
    let missing = desired.objects.iter().filter(|o| facts.objects_missing.contains(&label(o)));
    let objects = missing.map(|object| {
        Step::add(0, "object", label(object), Op::Apply(object.clone()))
            .because("is not in the cluster as asked")
    });
    let pools = pools::plan(&desired.pools, &facts.pools).into_iter().map(|s| s.map(Op::Pool));
    objects.chain(pools).collect()
}

/// The steps down. What lives in the cluster goes with it.
#[must_use]
pub fn teardown(scope: &Scope, facts: &GpuFacts) -> Vec<Step<Op>> {
    pools::teardown(scope, &facts.pools).into_iter().map(|step| step.map(Op::Pool)).collect()
}
