//! From the pools as they are to the pools as they should be. Pure.

use std::collections::BTreeMap;

use crate::aws::tagging::{Holder, Tags};
use crate::config::spec::Size;
use crate::launch::managed::GroupFact;
use crate::layers::pools::desired::{Made, PoolWish};
use crate::layers::pools::observe::{PoolsFacts, description};
use crate::layers::pools::tags;
use crate::stack::{Action, Layer, Scope, Step};

/// What a step does to a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes a placement group.
    CreatePlacement(String, BTreeMap<String, String>),
    /// Makes the launch template.
    CreateTemplate(Box<PoolWish>),
    /// Makes another version of the launch template.
    NewVersion(Box<PoolWish>),
    /// Makes the node group.
    CreateGroup(Box<PoolWish>),
    /// Removes a node group that EKS gave up, then makes it again.
    RecreateGroup(Box<PoolWish>),
    /// Asks a node group for another number of nodes.
    Resize(Box<PoolWish>),
    /// Replaces a node group's nodes by ones of the newest template version.
    Roll(Box<PoolWish>),
    /// Puts tags on what is there already.
    Tag(Holder, Tags),
    /// Removes a node group and waits until its instances are gone.
    DeleteGroup(String),
    /// Removes a launch template.
    DeleteTemplate(String),
    /// Removes a placement group if nothing is in it any more.
    RetirePlacement(String),
    /// Removes a placement group, waiting for what is on its way out of it.
    DeletePlacement(String),
}

/// The steps up.
#[must_use]
pub fn plan(wishes: &[PoolWish], facts: &PoolsFacts) -> Vec<Step<Op>> {
    let mut steps = Vec::new();
    for wish in wishes {
        plan_pool(wish, facts, &mut steps);
        steps.extend(tags::plan(wish, facts));
    }
    for group in facts.groups.iter().filter(|group| !wishes.iter().any(|w| w.name == group.name)) {
        let op = Op::DeleteGroup(group.name.clone());
        let step = Step::destroy(1, "node group", &group.name, op);
        steps.push(step.because("the fleet file names no such pool any more"));
    }
    for template in &facts.templates {
        if !wishes.iter().any(|wish| wish.template == template.name) {
            let op = Op::DeleteTemplate(template.id.clone());
            let step = Step::destroy(2, "launch template", &template.name, op);
            steps.push(step.because("the fleet file names no such pool any more"));
        }
    }
    for name in &facts.placement_groups {
        if !wishes.iter().any(|wish| wish.placement_group.as_ref() == Some(name)) {
            let op = Op::RetirePlacement(name.clone());
            let step = Step::destroy(3, "placement group", name, op);
            steps.push(step.because("the fleet file asks for no such group any more"));
        }
    }
    steps
}

fn plan_pool(wish: &PoolWish, facts: &PoolsFacts, steps: &mut Vec<Step<Op>>) {
    let boxed = || Box::new(wish.clone());
    let template = facts.templates.iter().find(|fact| fact.name == wish.template);
    let group = facts.groups.iter().find(|fact| fact.name == wish.name);
    let made = wish.made.as_ref();
    if let Some(name) =
        wish.placement_group.as_ref().filter(|n| !facts.placement_groups.contains(n))
    {
        let op = Op::CreatePlacement(name.clone(), wish.template_tags.clone());
        steps.push(Step::add(0, "placement group", name, op));
    }
    match (template, made) {
        (None, _) => {
            let step = Step::add(0, "launch template", &wish.template, Op::CreateTemplate(boxed()));
            steps.push(known_after(step, made));
        }
        (Some(fact), Some(made)) if fact.spec != description(&made.spec) => steps.push(
            Step::change(0, "launch template", &wish.template, Op::NewVersion(boxed()))
                .because(changed(&fact.image, &made.data.image)),
        ),
        (Some(_), _) => {}
    }
    match (group, made) {
        (None, _) => {
            let step = Step::add(1, "node group", &wish.name, Op::CreateGroup(boxed()));
            let why = format!("does not exist; {}", wish.size);
            steps.push(known_after(step.because(why), made));
        }
        (Some(fact), _) if fact.status == "CREATE_FAILED" => {
            let op = Op::RecreateGroup(boxed());
            let mut step = Step::change(1, "node group", &wish.name, op);
            step.action = Action::Replace;
            steps.push(step.because(format!("EKS gave it up: {}", fact.issues.join(", "))));
        }
        (Some(fact), Some(made)) => plan_group(wish, made, fact, facts, steps),
        (Some(_), None) => {}
    }
}

/// Says which layer must be built before more is known.
fn known_after(step: Step<Op>, made: Option<&Made>) -> Step<Op> {
    match made {
        Some(_) => step,
        None => {
            let why = format!("{} (known after: {})", step.why, Layer::Cluster);
            step.because(why)
        }
    }
}

fn plan_group(
    wish: &PoolWish,
    made: &Made,
    fact: &GroupFact,
    facts: &PoolsFacts,
    steps: &mut Vec<Step<Op>>,
) {
    let boxed = || Box::new(wish.clone());
    if fact.size != made.group.size {
        let why = format!("{} instead of {}", words(made.group.size), words(fact.size));
        let step = Step::change(1, "node group size", &wish.name, Op::Resize(boxed()));
        steps.push(step.because(why));
    }
    let template = facts.templates.iter().find(|template| template.name == wish.template);
    let newest = template.is_some_and(|template| {
        template.spec == description(&made.spec)
            && fact.template == Some((template.id.clone(), template.version.clone()))
    });
    if !newest {
        let mut step = Step::change(2, "nodes", &wish.name, Op::Roll(boxed()));
        step.action = Action::Replace;
        let image = template.map_or("", |template| template.image.as_str());
        let why = match image != made.data.image && !image.is_empty() {
            true => format!("rolled in batches onto image {}", made.data.image),
            false => "they were made from an older launch template".to_owned(),
        };
        steps.push(step.because(why));
    }
}

/// Why a launch template gets another version.
fn changed(before: &str, image: &str) -> String {
    match before.is_empty() || before == image {
        true => "nodes would be made from something else".to_owned(),
        false => format!("image {image} instead of {before}"),
    }
}

fn words(size: Size) -> String {
    format!("{} ({} to {})", size.desired, size.min, size.max)
}

/// The steps down.
#[must_use]
pub fn teardown(_: &Scope, facts: &PoolsFacts) -> Vec<Step<Op>> {
    let groups = facts.groups.iter().map(|group| {
        Step::destroy(0, "node group", &group.name, Op::DeleteGroup(group.name.clone()))
    });
    let templates = facts.templates.iter().map(|template| {
        let op = Op::DeleteTemplate(template.id.clone());
        Step::destroy(1, "launch template", &template.name, op)
    });
    // A group that still has instances cannot go; those of a node group are gone by then.
    let placements = facts
        .placement_groups
        .iter()
        .map(|name| Step::destroy(1, "placement group", name, Op::DeletePlacement(name.clone())));
    groups.chain(templates).chain(placements).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
