//! Checks a running fleet as an operator would by hand, each with the command that asks the same:
//! cluster, API, nodes, GPUs, pods, images, orphans. [`mod@gather`] reads, [`judge`] is pure.
//!
//! Reads alone: nothing is started in the cluster.

mod gather;
mod junit;

pub use gather::gather;
pub use junit::junit;

use serde::Serialize;

use crate::diagnose::{NodeState, NodeVerdict};
use crate::kube::PodFacts;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is so.
    Pass,
    /// It is not.
    Fail,
    /// There is nothing to check.
    Skipped,
    /// It could not be looked at.
    Unknown,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is checked, in a word.
    pub name: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// The command that asks the same.
    pub same: String,
}

/// A fleet that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Name of the fleet.
    pub fleet: String,
    /// The checks.
    pub checks: Vec<Check>,
}

impl Verified {
    /// The checks that did not pass.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| matches!(check.outcome, Outcome::Fail | Outcome::Unknown))
    }
}

/// What was read. What could not be, says why.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Name of the fleet.
    pub fleet: String,
    /// Its region.
    pub region: String,
    /// The cluster's status; none when EKS does not list it.
    pub status: Option<String>,
    /// Who we are to the API server.
    pub identity: Result<String, String>,
    /// Nodes that the node groups ask for.
    pub desired: u32,
    /// The nodes.
    pub nodes: Vec<NodeVerdict>,
    /// The system's pods.
    pub pods: Result<Vec<PodFacts>, String>,
    /// VPCs of fleets that have no cluster: fleet and id.
    pub orphans: Vec<(String, String)>,
}

/// The checks on what was read. Pure.
#[must_use]
pub fn judge(facts: &Facts) -> Verified {
    let checks = vec![
        cluster(facts),
        api(facts),
        nodes(facts),
        gpus(facts),
        pods(facts),
        images(facts),
        orphans(facts),
    ];
    Verified { fleet: facts.fleet.clone(), checks }
}

fn check(name: &'static str, ok: bool, detail: String, same: String) -> Check {
    let outcome = if ok { Outcome::Pass } else { Outcome::Fail };
    Check { name, outcome, detail, same }
}

fn unknown(name: &'static str, why: &str, same: String) -> Check {
    Check { name, outcome: Outcome::Unknown, detail: format!("not looked at: {why}"), same }
}

fn cluster(facts: &Facts) -> Check {
    let Facts { fleet, region, status, .. } = facts;
    let ok = matches!(status.as_deref(), Some("ACTIVE" | "UPDATING"));
    let detail = match status {
        Some(status) => format!("{fleet} is {status}"),
        None => format!("EKS lists no cluster `{fleet}`"),
    };
    check("cluster", ok, detail, format!("aws eks list-clusters --region {region}"))
}

fn api(facts: &Facts) -> Check {
    let same = "kubectl cluster-info".to_owned();
    match &facts.identity {
        Ok(who) => check("api", true, format!("answers, and knows us as {who}"), same),
        Err(why) => check("api", false, why.clone(), same),
    }
}

fn nodes(facts: &Facts) -> Check {
    let ready = facts.nodes.iter().filter(|node| node.state == NodeState::Ready).count();
    let mut detail = format!("{ready} of {} ready", facts.desired);
    for node in facts.nodes.iter().filter(|node| node.state != NodeState::Ready) {
        let why = node.reasons.first().map_or(node.progress(), |cause| cause.reason.as_str());
        detail.push_str(&format!("; {} {why}", node.place()));
    }
    let ok = facts.nodes.iter().all(|node| node.state == NodeState::Ready)
        && ready >= facts.desired as usize;
    check("nodes", ok, detail, "kubectl get nodes".to_owned())
}

fn gpus(facts: &Facts) -> Check {
    let with = |node: &&NodeVerdict| node.gpus_expected.is_none_or(|expected| expected > 0);
    let gpu_nodes: Vec<_> = facts.nodes.iter().filter(with).collect();
    let same = "kubectl describe nodes | grep nvidia.com/gpu; nvidia-smi on each".to_owned();
    if gpu_nodes.is_empty() {
        let detail = "no node has GPUs".to_owned();
        return Check { name: "gpus", outcome: Outcome::Skipped, detail, same };
    }
    // Ready is a node whose GPUs are proven and, the way its pool offers them, all on offer.
    let (ready, short): (Vec<&NodeVerdict>, Vec<&NodeVerdict>) =
        gpu_nodes.into_iter().partition(|node| node.state == NodeState::Ready);
    let count = |nodes: &[&NodeVerdict]| -> u32 {
        nodes.iter().filter_map(|node| node.gpus_expected).sum()
    };
    let (proven, expected) = (count(&ready), count(&ready) + count(&short));
    let short: Vec<_> = short.into_iter().map(NodeVerdict::place).collect();
    let mut detail = format!("{proven} of {expected} proven and on offer");
    if !short.is_empty() {
        detail.push_str(&format!("; not on {}", short.join(", ")));
    }
    check("gpus", short.is_empty(), detail, same)
}

fn pods(facts: &Facts) -> Check {
    let same = "kubectl get pods -n kube-system".to_owned();
    let pods = match &facts.pods {
        Ok(pods) => pods,
        Err(why) => return unknown("pods", why, same),
    };
    let runs = |pod: &&PodFacts| pod.phase == "Succeeded" || (pod.phase == "Running" && pod.ready);
    let bad: Vec<_> = pods.iter().filter(|pod| !runs(pod)).collect();
    let mut detail = format!("{} of {} run in kube-system", pods.len() - bad.len(), pods.len());
    for pod in &bad {
        let why = pod.waiting.as_deref().unwrap_or(&pod.phase);
        detail.push_str(&format!("; {} {why}", pod.name));
    }
    // The CNI runs on every node: no pod at all is a cluster that nobody can use.
    check("pods", bad.is_empty() && !pods.is_empty(), detail, same)
}

fn images(facts: &Facts) -> Check {
    let same =
        "kubectl get events -A --field-selector reason=Failed; aws ecr list-images".to_owned();
    let pods = match &facts.pods {
        Ok(pods) => pods,
        Err(why) => return unknown("images", why, same),
    };
    const PULLS: [&str; 4] =
        ["ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"];
    let pulls = |pod: &&PodFacts| pod.waiting.as_deref().is_some_and(|why| PULLS.contains(&why));
    let bad: Vec<_> = pods.iter().filter(pulls).map(|pod| pod.name.as_str()).collect();
    let detail = match bad.is_empty() {
        true => "every pod of kube-system has its image".to_owned(),
        false => format!("not pulled for {}", bad.join(", ")),
    };
    check("images", bad.is_empty(), detail, same)
}

fn orphans(facts: &Facts) -> Check {
    let list: Vec<_> =
        facts.orphans.iter().map(|(fleet, vpc)| format!("{vpc} of `{fleet}`")).collect();
    let detail = match list.is_empty() {
        true => "every fleet's VPC has a cluster".to_owned(),
        false => format!("no cluster uses {}: control sweep", list.join(", ")),
    };
    let same = "aws ec2 describe-vpcs --filters Name=tag-key,Values=rollcall:fleet".to_owned();
    check("orphans", list.is_empty(), detail, same)
}

#[cfg(test)]
mod tests;
