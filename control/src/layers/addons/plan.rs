//! From the add-ons as they are to the add-ons as they should be. Pure.

use serde_json::Value;

use crate::aws::tagging::{Tags, missing};
use crate::layers::addons::desired::{AddonWish, Desired};
use crate::layers::addons::observe::{AddonFact, AddonsFacts, label};
use crate::stack::{Scope, Step};

/// What a step of this layer does.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Makes an add-on of the cluster.
    Create(String, AddonWish),
    /// Puts tags on an add-on, by its ARN.
    Tag(String, Tags),
    /// Applies an object to the cluster.
    Apply(Value),
    /// Removes an add-on and waits until it is gone.
    Delete(String, String),
}

/// The steps up.
#[must_use]
pub fn plan(desired: &Desired, facts: &AddonsFacts) -> Vec<Step<Op>> {
    let mut steps = Vec::new();
    for wish in desired.addons.iter().filter(|wish| !facts.addons.contains_key(&wish.name)) {
        let op = Op::Create(desired.cluster.clone(), wish.clone());
        steps.push(Step::add(0, "add-on", &wish.name, op));
    }
    for wish in &desired.addons {
        let fact = facts.addons.get(&wish.name);
        steps.extend(fact.and_then(|fact| tags(wish, fact, Op::Tag)));
    }
    for object in &desired.objects {
        let name = label(object);
        if facts.objects_missing.contains(&name) {
            let step = Step::add(1, "object", name, Op::Apply(object.clone()));
            steps.push(step.because("is not in the cluster as asked"));
        }
    }
    steps
}

/// The step that puts the tags that an add-on lacks.
pub fn tags<Op>(
    wish: &AddonWish,
    fact: &AddonFact,
    op: impl FnOnce(String, Tags) -> Op,
) -> Option<Step<Op>> {
    let lacking = missing(&wish.tags, &fact.tags);
    if lacking.is_empty() || fact.status == "CREATING" {
        return None;
    }
    let keys: Vec<&str> = lacking.keys().map(String::as_str).collect();
    let why = format!("{} of the add-on", keys.join(", "));
    Some(Step::change(0, "tags", &wish.name, op(fact.arn.clone(), lacking)).because(why))
}

/// The steps down. What lives in the cluster goes with it.
#[must_use]
pub fn teardown(scope: &Scope, facts: &AddonsFacts) -> Vec<Step<Op>> {
    let names = facts.addons.keys();
    let delete = |name: &String| Op::Delete(scope.fleet.clone(), name.clone());
    names.map(|name| Step::destroy(0, "add-on", name, delete(name))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn wish() -> Desired {
        let addon = |name: &str| AddonWish { name: name.into(), tags: BTreeMap::new() };
        Desired {
            cluster: "prod".into(),
            addons: vec![addon("vpc-cni"), addon("kube-proxy")],
            objects: vec![json!({"kind": "ClusterRole", "metadata": {"name": "rollcall-node"}})],
        }
    }

    #[test]
    fn only_what_is_missing_is_made() {
        let mut facts = AddonsFacts {
            cluster: true,
            addons: BTreeMap::new(),
            objects_missing: vec!["ClusterRole rollcall-node".into()],
        };
        assert_eq!(plan(&wish(), &facts).len(), 3);
        let fact = AddonFact { status: "DEGRADED".into(), ..AddonFact::default() };
        facts.addons.insert("vpc-cni".into(), fact.clone());
        facts.objects_missing.clear();
        let names: Vec<_> = plan(&wish(), &facts).into_iter().map(|step| step.name).collect();
        assert_eq!(names, ["kube-proxy"]);
        facts.addons.insert("kube-proxy".into(), fact);
        assert_eq!(plan(&wish(), &facts), []);
    }
}
