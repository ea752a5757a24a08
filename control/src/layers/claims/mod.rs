//! What workloads hold of the account through Kubernetes, and what EKS wrote for the cluster: load
//! balancers, target groups, volumes, the log group; and what an ended node group left. No layer: nobody asked `control` for them, but a
//! fleet that leaves them behind is not gone.
//!
//! Load balancers are given back twice over: first the Services and Ingresses go, while a controller
//! is there that clears up behind them; what that left, and what an earlier life left, is found by the
//! tag of its cluster once the cluster is gone. A volume whose PersistentVolume says `Retain` stays,
//! and is no leftover: that is written on it before the cluster goes.

mod apply;
mod observe;

pub use apply::{release, remove};
pub use observe::{AccountClaims, ClusterClaims, in_account, in_cluster};

use crate::kube::claims::Front;
use crate::stack::Step;

/// Tag that keeps a volume from `down`: its PersistentVolume's reclaim policy was `Retain`.
pub const TAG_RETAIN: &str = "rollcall:retain";

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes on volumes that they are to stay.
    Retain(Vec<String>),
    /// Deletes a Service or an Ingress.
    DeleteFront(Front),
    /// Deletes a load balancer by its ARN.
    DeleteBalancer(String),
    /// Deletes a target group by its ARN.
    DeleteTargets(String),
    /// Terminates an instance.
    Terminate(String),
    /// Deletes a volume.
    DeleteVolume(String),
    /// Deletes the log group of that name.
    DeleteLogs(String),
}

/// The steps while the cluster is there. Pure.
#[must_use]
pub fn releases(facts: &ClusterClaims) -> Vec<Step<Op>> {
    let mut steps = Vec::new();
    if !facts.retained.is_empty() {
        let step = Step::change(0, "volumes", facts.retained.join(", "), {
            Op::Retain(facts.retained.clone())
        });
        steps.push(step.because("stay: their PersistentVolumes say Retain"));
    }
    for front in &facts.fronts {
        let name = format!("{}/{}", front.namespace, front.name);
        let op = Op::DeleteFront(front.clone());
        let step = Step::destroy(0, front.kind.label(), name, op);
        steps.push(step.because("has a load balancer"));
    }
    steps
}

/// The steps once the cluster is gone. Pure.
#[must_use]
pub fn removals(facts: &AccountClaims) -> Vec<Step<Op>> {
    let by_tag = "made by Kubernetes for a workload";
    let last = |arn: &str| arn.rsplit_once(":").map_or(arn, |(_, name)| name).to_owned();
    let mut steps = Vec::new();
    for arn in &facts.balancers {
        let step = Step::destroy(0, "load balancer", last(arn), Op::DeleteBalancer(arn.clone()));
        steps.push(step.because(by_tag));
    }
    for arn in &facts.targets {
        let step = Step::destroy(1, "target group", last(arn), Op::DeleteTargets(arn.clone()));
        steps.push(step.because(by_tag));
    }
    for instance in &facts.instances {
        let step = Step::destroy(0, "instance", instance, Op::Terminate(instance.clone()));
        steps.push(step.because("its node group is gone"));
    }
    for volume in &facts.volumes {
        let step = Step::destroy(0, "volume", volume, Op::DeleteVolume(volume.clone()));
        steps.push(step.because("nobody uses it"));
    }
    for group in &facts.logs {
        let step = Step::destroy(0, "log group", group, Op::DeleteLogs(group.clone()));
        steps.push(step.because("EKS writes the control plane's logs there"));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::claims::FrontKind;

    #[test]
    fn what_is_retained_stays_and_the_rest_goes() {
        let front = Front { kind: FrontKind::Service, namespace: "web".into(), name: "a".into() };
        let facts = ClusterClaims { fronts: vec![front], retained: vec!["vol-1".into()] };
        let rows: Vec<_> =
            releases(&facts).iter().map(|s| format!("{} {}", s.resource, s.name)).collect();
        assert_eq!(rows, ["volumes vol-1", "service web/a"]);
        let arn = "arn:aws:elasticloadbalancing:us-east-1:111122223333:loadbalancer/net/a/1";
        let facts = AccountClaims {
            balancers: vec![arn.into()],
            volumes: vec!["vol-2".into()],
            ..AccountClaims::default()
        };
        let rows: Vec<_> =
            removals(&facts).iter().map(|s| format!("{} {}", s.resource, s.name)).collect();
        assert_eq!(rows, ["load balancer loadbalancer/net/a/1", "volume vol-2"]);
    }
}
