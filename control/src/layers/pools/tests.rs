//! The plan of the pools, on tables of facts.

use std::collections::BTreeMap;

use super::*;
use crate::config::spec::Capacity;
use crate::launch::managed::{GroupTags, GroupWish};
use crate::launch::template::{LaunchPath, TemplateData};
use crate::layers::pools::observe::TemplateFact;

const SIZE: Size = Size { min: 0, desired: 4, max: 4 };

fn wish(spec: &str) -> PoolWish {
    let made = Made {
        data: TemplateData {
            path: LaunchPath::ManagedNodeGroup,
            image: "ami-1".into(),
            instance_type: "p5.48xlarge".into(),
            security_groups: vec![],
            user_data: String::new(),
            volume_gib: 100,
            interfaces: vec![],
            placement_group: None,
            reservation: None,
            tags: BTreeMap::new(),
        },
        spec: spec.into(),
        group: GroupWish {
            cluster: "prod".into(),
            name: "h100".into(),
            role: "arn:aws:iam::111122223333:role/prod-gpu-node".into(),
            subnets: vec![],
            size: SIZE,
            capacity: Capacity::OnDemand,
            labels: BTreeMap::new(),
            tags: BTreeMap::new(),
        },
    };
    PoolWish {
        name: "h100".into(),
        template: "prod-h100".into(),
        template_tags: BTreeMap::new(),
        placement_group: None,
        made: Some(made),
        size: "4 × p5.48xlarge".into(),
    }
}

fn facts(spec: &str, version: &str) -> PoolsFacts {
    PoolsFacts {
        templates: vec![TemplateFact {
            id: "lt-1".into(),
            name: "prod-h100".into(),
            pool: "h100".into(),
            version: "2".into(),
            spec: description(spec),
            image: "ami-1".into(),
            instance_type: "p5.48xlarge".into(),
            tags: BTreeMap::new(),
            launched: BTreeMap::new(),
        }],
        groups: vec![GroupFact {
            name: "h100".into(),
            layer: "gpu".into(),
            status: "ACTIVE".into(),
            size: SIZE,
            template: Some(("lt-1".into(), version.into())),
            zones: 2,
            issues: vec![],
            tagged: GroupTags::default(),
        }],
        ..PoolsFacts::default()
    }
}

fn rows(wishes: &[PoolWish], facts: &PoolsFacts) -> Vec<(Action, &'static str)> {
    plan(wishes, facts).iter().map(|step| (step.action, step.resource)).collect()
}

#[test]
fn nothing_there_means_template_and_group() {
    let all = rows(&[wish("a")], &PoolsFacts::default());
    assert_eq!(all, [(Action::Add, "launch template"), (Action::Add, "node group")]);
    let mut early = wish("a");
    early.made = None;
    let steps = plan(&[early], &PoolsFacts::default());
    assert!(steps.iter().all(|step| step.why.ends_with("(known after: cluster)")), "{steps:#?}");
}

#[test]
fn all_there_means_nothing_to_do() {
    assert_eq!(rows(&[wish("a")], &facts("a", "2")), []);
}

#[test]
fn what_differs_is_changed_and_no_more() {
    type Change = fn(&mut PoolsFacts);
    type Rows = &'static [(Action, &'static str)];
    let cases: [(&str, Change, Rows); 4] = [
        ("size", |f| f.groups[0].size.desired = 3, &[(Action::Change, "node group size")]),
        (
            "specification",
            |f| f.templates[0].spec = description("old"),
            &[(Action::Change, "launch template"), (Action::Replace, "nodes")],
        ),
        (
            "a roll that was interrupted",
            |f| f.groups[0].template = Some(("lt-1".into(), "1".into())),
            &[(Action::Replace, "nodes")],
        ),
        (
            "a group that EKS gave up",
            |f| f.groups[0].status = "CREATE_FAILED".into(),
            &[(Action::Replace, "node group")],
        ),
    ];
    for (what, change, expected) in cases {
        let mut there = facts("a", "2");
        change(&mut there);
        assert_eq!(rows(&[wish("a")], &there), expected, "{what}");
    }
}

#[test]
fn a_pool_that_is_named_no_more_goes() {
    let expected = [(Action::Destroy, "node group"), (Action::Destroy, "launch template")];
    assert_eq!(rows(&[], &facts("a", "2")), expected);
}

#[test]
fn a_placement_group_is_made_before_and_goes_after_its_nodes() {
    let mut near = wish("a");
    near.placement_group = Some("prod-h100".into());
    let steps = plan(&[near.clone()], &PoolsFacts::default());
    assert_eq!((steps[0].action, steps[0].resource), (Action::Add, "placement group"));
    let stages: Vec<u8> = steps.iter().map(|step| step.stage).collect();
    assert!(stages[0] < stages[2], "the node group launches into it: {stages:?}");
    let mut there = facts("a", "2");
    there.placement_groups = vec!["prod-h100".into()];
    assert_eq!(rows(&[near], &there), []);
    // The pool stays and asks for none any more.
    assert_eq!(rows(&[wish("a")], &there), [(Action::Destroy, "placement group")]);
    let scope = Scope::example();
    let down = teardown(&scope, &there);
    let last = down.iter().max_by_key(|step| step.stage).unwrap();
    assert!(down.iter().any(|step| step.resource == "placement group" && step.stage == last.stage));
}

#[test]
fn tags_change_in_place_and_roll_nothing() {
    let tags = |value: &str| BTreeMap::from([("cost-center".to_owned(), value.to_owned())]);
    let pool = |value: &str| {
        BTreeMap::from([
            ("cost-center".to_owned(), value.to_owned()),
            (contract::names::TAG_POOL.to_owned(), "h100".to_owned()),
        ])
    };
    let mut wish = wish("a");
    wish.template_tags = tags("training");
    wish.made.as_mut().unwrap().group.tags = tags("training");
    let mut facts = facts("a", "2");
    (facts.templates[0].tags, facts.templates[0].launched) = (tags("research"), tags("research"));
    facts.groups[0].tagged = GroupTags {
        arn: "arn:group".into(),
        tags: tags("research"),
        scaling_group: Some("eks-h100".into()),
    };
    facts.tags.parts = BTreeMap::from([
        ("i-1".to_owned(), pool("research")),
        ("vol-1".to_owned(), pool("research")),
        ("i-2".to_owned(), pool("training")),
        // Another pool's is not ours to tag.
        ("i-3".to_owned(), tags("research")),
    ]);
    let steps = plan(std::slice::from_ref(&wish), &facts);
    assert!(steps.iter().all(|step| (step.action, step.resource) == (Action::Change, "tags")));
    let holders: Vec<_> = steps
        .iter()
        .map(|step| match &step.op {
            Op::Tag(holder, put) => (holder.clone(), put == &tags("training")),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        Holder::Ec2(vec!["lt-1".into()]),
        Holder::Ec2(vec!["i-1".into(), "vol-1".into()]),
        Holder::Eks("arn:group".into()),
        Holder::Scaling("eks-h100".into()),
    ];
    assert_eq!(holders, expected.map(|holder| (holder, true)));
    // What the scaling group puts on nodes outranks the template's.
    facts.tags.propagated = BTreeMap::from([("eks-h100".to_owned(), tags("training"))]);
    assert_eq!(plan(&[wish], &facts).len(), 3);
}
