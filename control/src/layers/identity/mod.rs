//! Identity: one role per trust boundary, the node's rights, and the bucket that the agent's tarball
//! is published in.
//!
//! Needs nothing but the account's id. Gives role ARNs. The instance profiles of managed groups are
//! EKS's own.

pub mod apply;
pub mod artifact;
pub mod desired;
pub mod gate;
pub mod observe;
pub mod plan;
pub mod rights;

use contract::agent_config::Install;

use crate::config::spec::AgentSource;
use crate::stack::world::IdentityGiven;
use crate::stack::{Applied, Gate, Given, Inputs, Layer, Scope, StackError, Step, Storey, World};

pub use observe::IdentityFacts;
pub use plan::Op;

/// The identity layer.
#[derive(Debug)]
pub struct Identity;

impl Storey for Identity {
    const LAYER: Layer = Layer::Identity;
    type Facts = IdentityFacts;
    type Op = Op;

    async fn observe(world: &World, inputs: Option<&Inputs>) -> Result<IdentityFacts, StackError> {
        observe::observe(world, inputs).await
    }

    fn plan(inputs: &Inputs, facts: &IdentityFacts) -> Result<Vec<Step<Op>>, StackError> {
        plan::plan(&desired::desired(inputs), facts)
    }

    fn teardown(scope: &Scope, facts: &IdentityFacts) -> Vec<Step<Op>> {
        plan::teardown(scope, facts)
    }

    async fn apply(
        world: &World,
        op: &Op,
        facts: &IdentityFacts,
    ) -> Result<Applied<IdentityFacts>, StackError> {
        apply::apply(world, op, facts).await
    }

    async fn gate(
        world: &World,
        inputs: &Inputs,
        facts: &mut IdentityFacts,
    ) -> Result<Gate, StackError> {
        gate::wait(world, inputs, facts).await
    }

    fn give(inputs: &Inputs, facts: &IdentityFacts, given: &mut Given) {
        let names = desired::RoleNames::of(&inputs.scope.fleet);
        let roles = &inputs.spec.roles;
        let arn = |existing: &Option<String>, name: &str| {
            let made = || facts.roles.iter().find(|role| role.name == name);
            existing.clone().or_else(|| made().map(|role| role.arn.clone()))
        };
        given.identity = (|| {
            Some(IdentityGiven {
                cluster_role: arn(&roles.cluster, &names.cluster)?,
                system_node_role: arn(&roles.system_node, &names.system_node)?,
                gpu_node_role: arn(&roles.gpu_node, &names.gpu_node)?,
            })
        })();
    }
}

/// Where nodes fetch the agent from; none where it is baked into the image.
#[must_use]
pub fn install(inputs: &Inputs) -> Option<Install> {
    match &inputs.spec.agent {
        AgentSource::Baked => None,
        AgentSource::Fetched { url, sha256 } => {
            Some(Install { url: url.clone(), sha256: sha256.clone() })
        }
        AgentSource::Published => inputs.artifact.as_ref().map(|artifact| Install {
            url: format!("s3://{}/{}", desired::bucket_name(&inputs.scope), artifact.key()),
            sha256: artifact.sha256.clone(),
        }),
    }
}
