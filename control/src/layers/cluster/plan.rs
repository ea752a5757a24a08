//! From the control plane as it is to the control plane as it should be. Pure.

use crate::layers::cluster::desired::Desired;
use crate::layers::cluster::observe::ControlPlaneFacts;
use crate::stack::{Scope, StackError, Step};

/// What a step of this layer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes the cluster.
    Create(Desired),
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
        return Ok(vec![Step::add(0, "eks cluster", name, Op::Create(desired.clone()))]);
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
        _ => Ok(Vec::new()),
    }
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
    fn what_cannot_become_as_asked_is_said() {
        let foreign = ControlPlaneFacts { ours: false, ..fact("ACTIVE") };
        let old = ControlPlaneFacts { version: "1.33".into(), ..fact("ACTIVE") };
        for facts in [fact("FAILED"), fact("DELETING"), foreign, old] {
            assert!(matches!(plan(&wish(), &facts), Err(StackError::Conflict { .. })), "{facts:?}");
        }
    }
}
