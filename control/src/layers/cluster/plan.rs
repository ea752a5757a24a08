//! From the control plane as it is to the control plane as it should be. Pure.

use crate::aws::tagging::{Tags, missing};
use crate::layers::cluster::desired::Desired;
use crate::layers::cluster::observe::ControlPlaneFacts;
use crate::stack::{Scope, StackError, Step};

/// What a step of this layer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes the cluster.
    Create(Desired),
    /// Puts tags on the cluster, by its ARN.
    Tag(String, Tags),
    /// Removes the cluster and waits until it is gone.
    Delete(String),
}

/// The steps up.
///
/// # Errors
/// [`StackError::Conflict`] when a cluster of this name is somebody else's, has another version, or
/// is in a state that it does not leave.
pub fn plan(desired: &Desired, facts: &ControlPlaneFacts) -> Result<Vec<Step<Op>>, StackError> {
    let name = &desired.name;
    let Some(status) = &facts.status else {
        let step = Step::add(0, "eks cluster", name, Op::Create(desired.clone()));
        return Ok(vec![match desired.foundation {
            Some(_) => step,
            None => step.because("does not exist (known after: network, identity)"),
        }]);
    };
    let conflict =
        |message: String, hint: &str| Err(StackError::Conflict { message, hint: hint.to_owned() });
    if !facts.ours {
        return conflict(
            format!("the cluster `{name}` exists and does not belong to this fleet"),
            "choose another name for the fleet",
        );
    }
    match status.as_str() {
        "FAILED" => conflict(
            format!("the cluster `{name}` is FAILED, and EKS does not mend that"),
            "take the fleet down, then up again; `aws eks describe-cluster` says why it failed",
        ),
        "DELETING" => conflict(
            format!("the cluster `{name}` is being deleted"),
            "wait until it is gone, then run `control up` again",
        ),
        _ if facts.version != desired.version => conflict(
            format!(
                "the cluster `{name}` runs Kubernetes {}, and the fleet file asks for {}",
                facts.version, desired.version
            ),
            "put the old version back: upgrades are not among what `control` does yet",
        ),
        // While it is being made EKS takes no tags, and it has those that it was made with.
        "CREATING" => Ok(Vec::new()),
        _ => Ok(tags(desired, facts)),
    }
}

fn tags(desired: &Desired, facts: &ControlPlaneFacts) -> Vec<Step<Op>> {
    let lacking = missing(&desired.tags, &facts.tags);
    if lacking.is_empty() {
        return Vec::new();
    }
    let keys: Vec<&str> = lacking.keys().map(String::as_str).collect();
    let why = format!("{} of the cluster", keys.join(", "));
    let op = Op::Tag(facts.arn.clone(), lacking);
    vec![Step::change(0, "tags", &desired.name, op).because(why)]
}

/// The steps down. A cluster that is being deleted already is waited for.
#[must_use]
pub fn teardown(scope: &Scope, facts: &ControlPlaneFacts) -> Vec<Step<Op>> {
    let name = &scope.fleet;
    match &facts.status {
        Some(_) if facts.ours => {
            vec![Step::destroy(0, "eks cluster", name, Op::Delete(name.clone()))]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn wish() -> Desired {
        Desired {
            name: "prod".into(),
            version: "1.34".into(),
            foundation: None,
            tags: BTreeMap::new(),
        }
    }

    fn fact(status: &str) -> ControlPlaneFacts {
        ControlPlaneFacts {
            status: Some(status.into()),
            ours: true,
            version: "1.34".into(),
            arn: "arn:aws:eks:eu-west-1:111122223333:cluster/prod".into(),
            tags: BTreeMap::new(),
            cluster: None,
        }
    }

    #[test]
    fn what_is_not_there_is_made_and_what_is_being_made_is_waited_for() {
        assert_eq!(plan(&wish(), &ControlPlaneFacts::default()).unwrap().len(), 1);
        for status in ["CREATING", "ACTIVE", "UPDATING"] {
            assert_eq!(plan(&wish(), &fact(status)).unwrap(), [], "{status}");
        }
    }

    #[test]
    fn tags_change_in_place() {
        let mut desired = wish();
        desired.tags = BTreeMap::from([("cost-center".into(), "training".into())]);
        let steps = plan(&desired, &fact("ACTIVE")).unwrap();
        assert!(matches!(&steps[..], [Step { op: Op::Tag(..), .. }]), "{steps:?}");
        assert_eq!(plan(&desired, &fact("CREATING")).unwrap(), []);
        let tagged = ControlPlaneFacts { tags: desired.tags.clone(), ..fact("ACTIVE") };
        assert_eq!(plan(&desired, &tagged).unwrap(), []);
    }

    #[test]
    fn what_cannot_become_as_asked_is_said() {
        let foreign = ControlPlaneFacts { ours: false, ..fact("ACTIVE") };
        let old = ControlPlaneFacts { version: "1.33".into(), ..fact("ACTIVE") };
        for facts in [fact("FAILED"), fact("DELETING"), foreign, old] {
            assert!(matches!(plan(&wish(), &facts), Err(StackError::Conflict { .. })), "{facts:?}");
        }
    }
}
