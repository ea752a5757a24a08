//! Proves a layer's pools: every node Ready with its GPUs proven, or a named reason.
//!
//! Never waits for EKS's own verdict on a new group, which takes 25 minutes: ours comes first.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::{Finding, Reason};

use crate::aws::AwsError;
use crate::aws::poll::{Waited, a_few_at_once, until};
use crate::diagnose::{NodeState, NodeVerdict, node_verdicts};
use crate::kube::Cluster;
use crate::launch::managed::{self, GroupFact};
use crate::launch::refusal::{self, Refusal};
use crate::layers::addons::observe::connect;
use crate::layers::pools::breaker::Breakers;
use crate::layers::pools::replace::{self, Replacement};
use crate::output::progress::{Mark, NodeLine};
use crate::stack::report::{NodeTally, PoolTally};
use crate::stack::{Gate, Inputs, Layer, StackError, World};

/// Ten minutes to registration, five to ready, three for EKS and EC2 to start anything at all.
const DEADLINE: Duration = Duration::from_secs(18 * 60);

/// Waits until every node of the layer has its verdict.
///
/// # Errors
/// Those of the reads.
pub async fn wait(world: &World, inputs: &Inputs, layer: Layer) -> Result<Gate, StackError> {
    let cluster = connect(world, inputs).await?;
    let mut breakers = Breakers::default();
    let mut replaced: Vec<Replacement> = Vec::new();
    loop {
        let (mut tally, mut settled) = (NodeTally::default(), Vec::new());
        let look = async || {
            let (mut nodes, groups) = see(world, inputs, layer, cluster.as_ref()).await?;
            let refusals = refusals(world, &short(inputs, layer, &nodes, &groups)).await?;
            // One that was replaced may be listed for a moment yet.
            nodes.retain(|node| !replaced.iter().any(|one| one.instance == node.instance));
            world.progress.nodes(&nodes.iter().map(line).collect::<Vec<_>>());
            tally = count((inputs, layer), &nodes, &groups, &refusals);
            breakers.keep(world, &nodes).await?;
            settled = nodes;
            Ok(is_settled(&tally).then_some(()))
        };
        let waited = until(world.pace, DEADLINE, &world.interrupt, look).await?;
        let failed = match waited {
            Waited::Came(()) => replace::chosen(inputs, layer, &settled, &replaced),
            Waited::TooLong => Vec::new(),
        };
        if failed.is_empty() {
            tally.replaced = replaced;
            return Ok(match waited {
                Waited::Came(()) => verdict(tally),
                Waited::TooLong => Gate::TimedOut { detail: words(&tally), nodes: tally },
            });
        }
        let mut news = Vec::new();
        for node in failed {
            news.push(replace::replace(world, cluster.as_ref(), node).await?);
        }
        replaced.extend(news);
    }
}

/// Waits until the layer has a Ready node, or none can come any more: which one did not, and why, is
/// the gate's to say.
///
/// # Errors
/// Those of the reads.
pub async fn first_node(world: &World, layer: Layer, cluster: &Cluster) -> Result<(), StackError> {
    let fleet = &world.scope.fleet;
    let look = async || {
        let mut nodes = node_verdicts(&world.clients, Some(cluster), fleet).await?;
        nodes.retain(|node| node.layer == layer.label());
        world.progress.nodes(&nodes.iter().map(line).collect::<Vec<_>>());
        if nodes.iter().any(|node| node.state == NodeState::Ready) {
            return Ok(Some(()));
        }
        let mut groups = match nodes.is_empty() {
            true => managed::list(&world.clients, fleet).await?,
            false => Vec::new(),
        };
        groups.retain(|group| group.layer == layer.label());
        let refusals = refusals(world, &groups.iter().collect::<Vec<_>>()).await?;
        Ok(is_hopeless(&nodes, &groups, &refusals).then_some(()))
    };
    until(world.pace, DEADLINE, &world.interrupt, look).await.map(drop)
}

/// Whether no node of the layer is on its way any more. Pure.
fn is_hopeless(nodes: &[NodeVerdict], groups: &[GroupFact], refusals: &Refusals) -> bool {
    let given_up =
        |group: &GroupFact| group.status == "CREATE_FAILED" || refusals.contains_key(&group.name);
    match nodes.is_empty() {
        true => !groups.is_empty() && groups.iter().all(given_up),
        false => nodes.iter().all(|node| node.state == NodeState::Failed),
    }
}

/// By pool, why EC2 launches nothing more of it.
pub type Refusals = BTreeMap<String, Refusal>;

/// The groups that lack instances. Pure.
fn short<'a>(
    inputs: &Inputs,
    layer: Layer,
    nodes: &[NodeVerdict],
    groups: &'a [GroupFact],
) -> Vec<&'a GroupFact> {
    let lacks = |group: &&GroupFact| {
        let there = nodes.iter().filter(|node| node.pool == group.name).count();
        let mut pools = inputs.spec.pools_of(layer);
        pools.any(|pool| pool.name == group.name && there < pool.size.desired as usize)
    };
    groups.iter().filter(lacks).collect()
}

/// Why EC2 launches nothing more of these groups, where it is so: EKS says it after 25 minutes.
async fn refusals(world: &World, groups: &[&GroupFact]) -> Result<Refusals, AwsError> {
    let reads = groups.iter().filter_map(|group| {
        let scaling = group.tagged.scaling_group.as_deref()?;
        Some(async move {
            let tries = refusal::tries(&world.clients, scaling, world.began).await?;
            Ok(refusal::verdict(&tries, group.zones).map(|found| (group.name.clone(), found)))
        })
    });
    let found: Result<Vec<_>, AwsError> = a_few_at_once(reads).await.into_iter().collect();
    Ok(found?.into_iter().flatten().collect())
}

async fn see(
    world: &World,
    inputs: &Inputs,
    layer: Layer,
    cluster: Option<&Cluster>,
) -> Result<(Vec<NodeVerdict>, Vec<GroupFact>), StackError> {
    let fleet = &world.scope.fleet;
    let mut nodes = node_verdicts(&world.clients, cluster, fleet).await?;
    nodes.retain(|node| inputs.spec.pools_of(layer).any(|pool| pool.name == node.pool));
    let mut groups = managed::list(&world.clients, fleet).await?;
    groups.retain(|group| group.layer == layer.label());
    Ok((nodes, groups))
}

fn line(node: &NodeVerdict) -> NodeLine {
    let (mark, text) = match node.state {
        NodeState::Ready => (Mark::Good, "Ready".to_owned()),
        NodeState::Joining => (Mark::Waiting, node.progress().to_owned()),
        NodeState::Failed => (Mark::Bad, node.reasons.first().map(cause).unwrap_or_default()),
    };
    let text = match (node.state, node.gpus_expected) {
        (NodeState::Ready, Some(gpus)) if gpus > 0 => {
            format!("{text}, {gpus} {} proven", node.gpus_unit)
        }
        _ => text,
    };
    let word = match node.state {
        NodeState::Failed => node.reasons.first().map(|f| f.reason.to_string()).unwrap_or_default(),
        NodeState::Ready | NodeState::Joining => String::new(),
    };
    NodeLine { at: node.place(), instance: node.instance.clone(), text, word, mark }
}

fn cause(finding: &Finding) -> String {
    format!("{}: {}", finding.reason, finding.summary)
}

/// Counts the nodes. A group that EKS gave up, or of which EC2 launches nothing more, leaves its missing
/// nodes with that reason. Pure.
#[must_use]
pub fn count(
    (inputs, layer): (&Inputs, Layer),
    nodes: &[NodeVerdict],
    groups: &[GroupFact],
    refusals: &Refusals,
) -> NodeTally {
    let mut tally = NodeTally::default();
    for pool in inputs.spec.pools_of(layer) {
        let of_pool: Vec<_> = nodes.iter().filter(|node| node.pool == pool.name).collect();
        let state = |state: NodeState| {
            let found = of_pool.iter().filter(|node| node.state == state).count();
            u32::try_from(found).unwrap_or(u32::MAX)
        };
        let mut row = PoolTally {
            name: pool.name.clone(),
            class: pool.class.label().to_owned(),
            desired: pool.size.desired,
            quorum: pool.quorum,
            ready: state(NodeState::Ready),
            failed: state(NodeState::Failed),
            joining: state(NodeState::Joining),
        };
        for node in of_pool.iter().filter(|node| node.state == NodeState::Failed) {
            let reason = node.reasons.first().map_or("Unknown", |finding| finding.reason.as_str());
            tally.reasons.entry(reason.to_owned()).or_default().push(node.instance.clone());
        }
        let missing = pool.size.desired.saturating_sub(row.ready + row.failed + row.joining);
        let given_up = groups.iter().any(|g| g.name == pool.name && g.status == "CREATE_FAILED");
        let refusal = refusals.get(&pool.name);
        let given_up = given_up.then_some(Reason::NodeGroupCreateFailed);
        match refusal.map(|refusal| refusal.reason).or(given_up).filter(|_| missing > 0) {
            Some(reason) => {
                row.failed += missing;
                let name = reason.name().to_owned();
                tally.reasons.entry(name).or_default().push(pool.name.clone());
                let words = refusal.map(|refusal| (pool.name.clone(), refusal.words.clone()));
                tally.refused.extend(words);
            }
            None => row.joining += missing,
        }
        tally.pools.push(row);
    }
    tally
}

/// Whether every node has its verdict. A replacement that is still coming keeps the gate waiting. Pure.
#[must_use]
pub fn is_settled(tally: &NodeTally) -> bool {
    tally.pools.iter().all(|pool| pool.joining == 0 && pool.ready + pool.failed >= pool.desired)
}

/// The gate's answer on nodes that all have their verdict. Pure.
#[must_use]
pub fn verdict(tally: NodeTally) -> Gate {
    let detail = words(&tally);
    if tally.pools.iter().all(|pool| pool.failed == 0) {
        Gate::Open { detail, nodes: tally }
    } else if tally.pools.iter().all(|pool| pool.ready >= pool.quorum) {
        Gate::Degraded { detail, nodes: tally }
    } else {
        Gate::NodesFailed { detail, nodes: tally }
    }
}

/// `h100 2 of 4 ready, 2 failed`.
fn words(tally: &NodeTally) -> String {
    let pool = |pool: &PoolTally| {
        let mut text = format!("{} {} of {} ready", pool.name, pool.ready, pool.desired);
        for (count, word) in [(pool.failed, "failed"), (pool.joining, "joining")] {
            if count > 0 {
                text.push_str(&format!(", {count} {word}"));
            }
        }
        text
    };
    match tally.pools.is_empty() {
        true => "no pools".to_owned(),
        false => {
            let said = tally.refused.iter().map(|(name, words)| format!("{name}: {words}"));
            let pools = tally.pools.iter().map(pool).chain(said).collect::<Vec<_>>().join("; ");
            match tally.replaced.len() {
                0 => pools,
                many => format!("{pools}; {many} replaced"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FleetSpec;
    use crate::config::spec::Size;
    use crate::launch::managed::GroupTags;
    use crate::stack::{Given, Scope};

    fn inputs() -> Inputs {
        let text = "apiVersion: rollcall.dev/v1alpha1\nkind: Fleet\nname: prod\nregion: us-east-1\n\
                    kubernetes: \"1.34\"\nagent: {baked: true}\npools:\n  - {name: s, class: \
                    system, instanceType: m6i.large, size: {desired: 1}}\n  - {name: h100, class: \
                    gpu, instanceType: p5.48xlarge, size: {desired: 4, max: 4}}\n";
        let spec: FleetSpec = crate::config::parse(text, "fleet.yaml").unwrap();
        Inputs { scope: Scope::example(), spec, artifact: None, given: Given::default() }
    }

    fn group(status: &str) -> GroupFact {
        GroupFact {
            name: "h100".into(),
            layer: "gpu".into(),
            status: status.into(),
            size: Size { min: 0, desired: 4, max: 4 },
            template: None,
            zones: 2,
            issues: vec![],
            tagged: GroupTags::default(),
        }
    }

    fn refused() -> Refusals {
        let refusal = Refusal { reason: Reason::VcpuQuotaExceeded, words: "no more".into() };
        Refusals::from([("h100".to_owned(), refusal)])
    }

    #[test]
    fn what_is_launched_no_more_fails_with_its_reason_before_eks_says_so() {
        let inputs = inputs();
        let of = |groups: &[GroupFact], refusals: &Refusals| {
            count((&inputs, Layer::Gpu), &[], groups, refusals)
        };
        let waiting = of(&[group("CREATING")], &Refusals::new());
        assert!(!is_settled(&waiting) && waiting.reasons.is_empty());
        let given_up = of(&[group("CREATING")], &refused());
        assert!(is_settled(&given_up));
        assert_eq!(given_up.reasons["VcpuQuotaExceeded"], ["h100"]);
        let gate = verdict(given_up);
        assert!(!gate.is_open());
        assert_eq!(gate.detail(), "h100 0 of 4 ready, 4 failed; h100: no more");
        // EKS's own verdict has no cause; where EC2 named one, it is the one.
        let failed = of(&[group("CREATE_FAILED")], &Refusals::new());
        assert_eq!(failed.reasons["NodeGroupCreateFailed"], ["h100"]);
        let both = of(&[group("CREATE_FAILED")], &refused());
        assert_eq!(both.reasons.keys().collect::<Vec<_>>(), ["VcpuQuotaExceeded"]);
    }

    #[test]
    fn nobody_waits_for_a_first_node_that_cannot_come() {
        let none = Refusals::new();
        assert!(!is_hopeless(&[], &[group("CREATING")], &none));
        assert!(!is_hopeless(&[], &[], &none));
        assert!(is_hopeless(&[], &[group("CREATING")], &refused()));
        assert!(is_hopeless(&[], &[group("CREATE_FAILED")], &none));
    }

    #[test]
    fn only_groups_that_lack_instances_are_asked_about() {
        let (inputs, groups) = (inputs(), [group("CREATING")]);
        assert_eq!(short(&inputs, Layer::Gpu, &[], &groups).len(), 1);
        assert_eq!(short(&inputs, Layer::System, &[], &groups).len(), 0);
    }
}
