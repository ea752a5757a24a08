//! The cluster: EKS's control plane.
//!
//! Needs subnets and the control plane's role. Gives endpoint, CA, service CIDR and the security
//! group that nodes must carry. Who may enter is decided by access entries alone
//! (`authenticationMode: API`); a managed group's nodes get theirs from EKS.

pub mod apply;
pub mod desired;
pub mod gate;
pub mod observe;
pub mod plan;

use crate::stack::{Applied, Gate, Given, Inputs, Layer, Scope, StackError, Step, Storey, World};

pub use observe::ControlPlaneFacts;
pub use plan::Op;

/// The cluster layer.
#[derive(Debug)]
pub struct ControlPlane;

impl Storey for ControlPlane {
    const LAYER: Layer = Layer::Cluster;
    type Facts = ControlPlaneFacts;
    type Op = Op;

    async fn observe(world: &World, _: Option<&Inputs>) -> Result<ControlPlaneFacts, StackError> {
        observe::observe(world).await
    }

    fn plan(inputs: &Inputs, facts: &ControlPlaneFacts) -> Result<Vec<Step<Op>>, StackError> {
        plan::plan(&desired::desired(inputs), facts)
    }

    fn teardown(scope: &Scope, facts: &ControlPlaneFacts) -> Vec<Step<Op>> {
        plan::teardown(scope, facts)
    }

    async fn apply(
        world: &World,
        op: &Op,
        facts: &ControlPlaneFacts,
    ) -> Result<Applied<ControlPlaneFacts>, StackError> {
        apply::apply(world, op, facts).await
    }

    async fn gate(
        world: &World,
        inputs: &Inputs,
        facts: &mut ControlPlaneFacts,
    ) -> Result<Gate, StackError> {
        gate::wait(world, inputs, facts).await
    }

    fn give(_: &Inputs, facts: &ControlPlaneFacts, given: &mut Given) {
        given.cluster = facts.cluster.clone().filter(|cluster| cluster.status == "ACTIVE");
    }
}
