//! The breaker: a gate that most of a pool fails with one reason must not black out the fleet.
//!
//! Too many nodes with one reason, by count and by share, open the breaker for that reason: the
//! pool's policy in Parameter Store says so, and its nodes, which read it before a gate closes, join
//! with the reason in their condition. It is closed again when every node of the pool is proven.

use std::collections::BTreeMap;

use contract::names::policy_parameter;
use contract::policy::Breaker;
use contract::reason::Owner;
use contract::{PoolPolicy, Reason, ReasonName};

use crate::aws::{Attempted as _, AwsError};
use crate::diagnose::{NodeState, NodeVerdict};
use crate::stack::{StackError, World};

/// So many nodes must fail with one reason: a few broken machines are what a gate is for.
pub const COUNT_MIN: usize = 5;
/// And so many percent of the pool.
pub const PERCENT_MIN: usize = 50;

/// What a look at a pool asks of its policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Nothing is to be changed.
    Keep,
    /// These breakers are to be open, with how many nodes of how many failed.
    Open(BTreeMap<ReasonName, (u32, u32)>),
    /// Every node is proven: none is to be open.
    Close,
}

/// What the nodes of one pool ask for. Pure.
#[must_use]
pub fn demand(nodes: &[&NodeVerdict]) -> Demand {
    if !nodes.is_empty() && nodes.iter().all(|node| node.state == NodeState::Ready) {
        return Demand::Close;
    }
    let mut failed: BTreeMap<ReasonName, usize> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.state == NodeState::Failed) {
        if let Some(cause) = node.reasons.first().filter(|cause| is_gated(&cause.reason)) {
            *failed.entry(cause.reason.clone()).or_default() += 1;
        }
    }
    let too_many = |count: &usize| *count >= COUNT_MIN && count * 100 >= nodes.len() * PERCENT_MIN;
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let open: BTreeMap<_, _> = failed
        .into_iter()
        .filter(|(_, count)| too_many(count))
        .map(|(reason, count)| (reason, (number(count), number(nodes.len()))))
        .collect();
    if open.is_empty() { Demand::Keep } else { Demand::Open(open) }
}

/// Whether a gate before kubelet closes for the reason: the others keep nobody out.
fn is_gated(reason: &ReasonName) -> bool {
    let Some(known) = reason.known() else { return false };
    let owner = Reason::entry(known).owner;
    known.is_hard() && matches!(owner, Owner::Phase(phase) if phase.is_before_kubelet())
}

/// The policy that meets the demand; none when it does already. Pure.
#[must_use]
pub fn next(policy: &PoolPolicy, demand: &Demand, now: &str) -> Option<PoolPolicy> {
    let mut next = policy.clone();
    match demand {
        Demand::Keep => {}
        Demand::Close => next.breakers.clear(),
        Demand::Open(reasons) => {
            for (reason, (failed, nodes)) in reasons {
                let breaker = Breaker { opened: now.to_owned(), failed: *failed, nodes: *nodes };
                next.breakers.entry(reason.clone()).or_insert(breaker);
            }
        }
    }
    (next != *policy).then_some(next)
}

/// Keeps the policies of a layer's pools as its nodes ask for it, one write per change.
#[derive(Debug, Default)]
pub struct Breakers {
    met: BTreeMap<String, Demand>,
}

impl Breakers {
    /// Looks at the nodes; writes the policies that have to change.
    ///
    /// # Errors
    /// When a policy cannot be read or written.
    pub async fn keep(&mut self, world: &World, nodes: &[NodeVerdict]) -> Result<(), StackError> {
        let mut pools: BTreeMap<&str, Vec<&NodeVerdict>> = BTreeMap::new();
        for node in nodes {
            pools.entry(&node.pool).or_default().push(node);
        }
        for (pool, nodes) in pools {
            let demand = demand(&nodes);
            if demand == Demand::Keep || self.met.get(pool) == Some(&demand) {
                continue;
            }
            meet(world, pool, &demand).await?;
            self.met.insert(pool.to_owned(), demand);
        }
        Ok(())
    }
}

async fn meet(world: &World, pool: &str, demand: &Demand) -> Result<(), StackError> {
    let name = policy_parameter(&world.scope.fleet, pool);
    let read = || format!("read the policy `{name}`");
    let found = world.clients.ssm.get_parameter().name(&name).send().await.attempted(read);
    let text = match found {
        Ok(found) => found.parameter.and_then(|parameter| parameter.value),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error.into()),
    };
    let policy: PoolPolicy = match text {
        // A policy that cannot be read is none to the nodes as well: they keep their last copy.
        Some(text) => serde_json::from_str(&text).unwrap_or_default(),
        None => PoolPolicy::default(),
    };
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let Some(next) = next(&policy, demand, &now) else { return Ok(()) };
    world.lease.prove().await?;
    let value = serde_json::to_string(&next).map_err(|_| AwsError::Incomplete {
        attempted: format!("write the policy `{name}`"),
        missing: "JSON",
    })?;
    let open: Vec<&str> = next.breakers.keys().map(ReasonName::as_str).collect();
    tracing::warn!(pool, open = ?open, "the pool's breakers change");
    let put = world.clients.ssm.put_parameter().name(&name).value(value).overwrite(true);
    let put = put.r#type(aws_sdk_ssm::types::ParameterType::String);
    put.send().await.attempted(|| format!("write the policy `{name}`"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use contract::{Finding, Phase};

    use super::*;
    use crate::diagnose::Stage;

    fn node(state: NodeState, reason: Option<Reason>) -> NodeVerdict {
        NodeVerdict {
            instance: "i-1".into(),
            pool: "h100".into(),
            index: 0,
            node_name: None,
            layer: "gpu".into(),
            zone: String::new(),
            instance_type: String::new(),
            ec2_state: "running".into(),
            stage: Stage::NotBootstrapped,
            phase: None,
            state,
            gpus_expected: None,
            gpus_offered: None,
            gpus_unit: "GPUs",
            reasons: reason.map(|r| Finding::new(r, Phase::Drivers, "x")).into_iter().collect(),
        }
    }

    fn of(parts: &[(usize, NodeState, Option<Reason>)]) -> Demand {
        let nodes: Vec<NodeVerdict> = parts
            .iter()
            .flat_map(|(count, state, reason)| vec![node(*state, *reason); *count])
            .collect();
        demand(&nodes.iter().collect::<Vec<_>>())
    }

    #[test]
    fn opens_by_count_and_by_share() {
        use NodeState::{Failed, Joining, Ready};
        let lost = Some(Reason::GpuLost);
        for (parts, opens) in [
            (&[(4, Failed, lost)][..], false),
            (&[(5, Failed, lost)][..], true),
            (&[(5, Failed, lost), (5, Ready, None)][..], true),
            (&[(5, Failed, lost), (6, Joining, None)][..], false),
            (&[(3, Failed, lost), (3, Failed, Some(Reason::DriverHang))][..], false),
            // Nothing keeps these nodes out that a breaker could open.
            (&[(9, Failed, Some(Reason::NodeNotReady))][..], false),
            (&[(9, Failed, Some(Reason::AgentSilent))][..], false),
            (&[(9, Failed, None)][..], false),
        ] {
            assert_eq!(matches!(of(parts), Demand::Open(_)), opens, "{parts:?}");
        }
        let expected = BTreeMap::from([(Reason::GpuLost.into(), (40, 64))]);
        assert_eq!(of(&[(40, Failed, lost), (24, Ready, None)]), Demand::Open(expected));
    }

    #[test]
    fn closes_when_every_node_is_proven() {
        assert_eq!(of(&[(8, NodeState::Ready, None)]), Demand::Close);
        assert_eq!(of(&[(8, NodeState::Ready, None), (1, NodeState::Joining, None)]), Demand::Keep);
        assert_eq!(of(&[]), Demand::Keep);
    }

    #[test]
    fn a_policy_is_written_only_when_it_changes_and_keeps_what_people_wrote() {
        let none = PoolPolicy::default();
        let demand = Demand::Open(BTreeMap::from([(Reason::GpuLost.into(), (40, 64))]));
        let open = next(&none, &demand, "now").unwrap();
        assert_eq!(open.breakers[&Reason::GpuLost.into()].opened, "now");
        assert_eq!(next(&open, &demand, "later"), None, "it is open already");
        let mut own = open.clone();
        own.enforce = Some(contract::agent_config::Enforce::Observe);
        let closed = next(&own, &Demand::Close, "later").unwrap();
        assert!(closed.breakers.is_empty() && closed.enforce.is_some());
        assert_eq!(next(&none, &Demand::Close, "now"), None);
        assert_eq!(next(&open, &Demand::Keep, "now"), None);
    }
}
