//! Add-ons that nodes need, before any node: vpc-cni, kube-proxy, the pod identity agent; and the
//! node's one extra right in Kubernetes.
//!
//! Needs an ACTIVE cluster. CoreDNS is the system layer's: it needs nodes to be available.

pub mod apply;
pub mod desired;
pub mod gate;
pub mod observe;
pub mod plan;

use crate::stack::{Applied, Gate, Given, Inputs, Layer, Scope, StackError, Step, Storey, World};

pub use observe::AddonsFacts;
pub use plan::Op;

/// The addons layer.
#[derive(Debug)]
pub struct Addons;

impl Storey for Addons {
    const LAYER: Layer = Layer::Addons;
    type Facts = AddonsFacts;
    type Op = Op;

    async fn observe(world: &World, inputs: Option<&Inputs>) -> Result<AddonsFacts, StackError> {
        observe::observe(world, inputs).await
    }

    fn plan(inputs: &Inputs, facts: &AddonsFacts) -> Result<Vec<Step<Op>>, StackError> {
        Ok(plan::plan(&desired::desired(inputs), facts))
    }

    fn teardown(scope: &Scope, facts: &AddonsFacts) -> Vec<Step<Op>> {
        plan::teardown(scope, facts)
    }

    async fn apply(
        world: &World,
        op: &Op,
        facts: &AddonsFacts,
    ) -> Result<Applied<AddonsFacts>, StackError> {
        apply::apply(world, op, facts).await
    }

    async fn gate(
        world: &World,
        inputs: &Inputs,
        facts: &mut AddonsFacts,
    ) -> Result<Gate, StackError> {
        gate::wait(world, inputs, facts).await
    }

    fn give(_: &Inputs, _: &AddonsFacts, _: &mut Given) {}
}
