//! The plan of the identity layer, on tables of facts.

use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::aws::partition;
use crate::config::FleetSpec;
use crate::layers::identity::desired::{self, RoleNames};
use crate::layers::identity::gate;
use crate::stack::{Action, Given, Inputs};

fn spec() -> FleetSpec {
    let text = "apiVersion: rollcall.dev/v1alpha1\nkind: Fleet\nname: prod\nregion: eu-west-1\n\
        kubernetes: \"1.34\"\nagent: {publish: true}\npools:\n  - {name: system, class: system, \
        instanceType: m6i.large, size: {min: 1, desired: 1, max: 1}}\n";
    crate::config::parse(text, "fleet.yaml").unwrap()
}

fn inputs() -> Inputs {
    Inputs {
        scope: Scope {
            fleet: "prod".into(),
            account: "111122223333".into(),
            region: "eu-west-1".into(),
            partition: partition::of_region("eu-west-1").unwrap(),
        },
        spec: spec(),
        artifact: Some(Artifact {
            path: PathBuf::from("agent.tar.gz"),
            sha256: "ab".repeat(32),
            size: 3,
        }),
        given: Given::default(),
    }
}

/// The world after everything was done.
fn complete(desired: &Desired) -> IdentityFacts {
    let bucket = desired.bucket.as_ref().unwrap();
    let artifact = bucket.artifact.as_ref().unwrap();
    IdentityFacts {
        roles: desired
            .roles
            .iter()
            .map(|wish| RoleFact {
                name: wish.name.clone(),
                arn: format!("arn:aws:iam::111122223333:role/{}", wish.name),
                ours: true,
                tags: wish.tags.clone(),
                trust: wish.trust.clone(),
                managed: wish.managed.clone(),
                inline_names: wish.inline.iter().map(|_| NODE_POLICY.to_owned()).collect(),
                inline: wish.inline.clone(),
                profiles: vec![],
            })
            .collect(),
        existing: vec![],
        bucket: Some(BucketFact {
            name: bucket.name.clone(),
            private: true,
            tags: bucket.tags.clone(),
            objects: [(artifact.key(), Some(artifact.s3_checksum()))].into(),
        }),
    }
}

#[test]
fn nothing_there_means_all_is_added() {
    let desired = desired::desired(&inputs());
    let steps = plan(&desired, &IdentityFacts::default()).unwrap();
    assert!(steps.iter().all(|step| step.action == Action::Add));
    // 3 roles, 1 + 4 + 4 attachments, 2 node rights, bucket, tarball.
    assert_eq!(steps.len(), 16);
}

#[test]
fn all_there_means_nothing_to_do_and_an_open_gate() {
    let desired = desired::desired(&inputs());
    let facts = complete(&desired);
    assert_eq!(plan(&desired, &facts).unwrap(), []);
    assert_eq!(gate::verdict(&desired, &facts).unwrap(), Vec::<String>::new());
}

#[test]
fn what_somebody_changed_is_put_back() {
    type Change = fn(&mut IdentityFacts);
    let changes: [(&str, Change); 6] = [
        ("role trust", |facts| facts.roles[1].trust = json!({})),
        ("policy attachment", |facts| facts.roles[2].managed.truncate(3)),
        ("node rights", |facts| facts.roles[1].inline = Some(json!({"Statement": []}))),
        ("bucket", |facts| facts.bucket.as_mut().unwrap().private = false),
        ("bucket", |facts| facts.bucket.as_mut().unwrap().tags.clear()),
        ("agent tarball", |facts| {
            for checksum in facts.bucket.as_mut().unwrap().objects.values_mut() {
                *checksum = Some("AAAA".into());
            }
        }),
    ];
    let desired = desired::desired(&inputs());
    for (resource, change) in changes {
        let mut facts = complete(&desired);
        change(&mut facts);
        let steps = plan(&desired, &facts).unwrap();
        let resources: Vec<_> = steps.iter().map(|step| step.resource).collect();
        assert_eq!(resources, [resource]);
    }
}

#[test]
fn a_role_of_somebody_else_is_neither_taken_nor_removed() {
    let desired = desired::desired(&inputs());
    let mut facts = complete(&desired);
    facts.roles[0].ours = false;
    assert!(matches!(plan(&desired, &facts), Err(StackError::Conflict { .. })));
    let name = facts.roles[0].name.clone();
    assert!(!teardown(&inputs().scope, &facts).iter().any(|step| step.name == name));
}

#[test]
fn teardown_empties_before_it_removes() {
    let desired = desired::desired(&inputs());
    let steps = teardown(&inputs().scope, &complete(&desired));
    assert!(steps.is_sorted_by_key(|step| step.stage));
    let last: Vec<_> = steps.iter().filter(|s| s.stage == 1).map(|s| s.resource).collect();
    assert_eq!(last, ["role", "role", "role", "bucket"]);
}

#[test]
fn names_fit_their_services() {
    let long = "f".repeat(100);
    for name in RoleNames::of(&long).all() {
        assert!(name.len() <= 64, "{name}");
    }
    let mut scope = inputs().scope;
    scope.fleet = long;
    assert!(desired::bucket_name(&scope).len() <= 63);
}

/// The inputs of a fleet whose GPU nodes use a role that is there already.
fn with_role() -> (Inputs, RoleFact) {
    let arn = "arn:aws:iam::111122223333:role/team/gpu";
    let mut inputs = inputs();
    inputs.spec.roles.gpu_node = Some(arn.into());
    let fact = RoleFact {
        name: "gpu".into(),
        arn: arn.into(),
        ours: false,
        tags: std::collections::BTreeMap::new(),
        trust: json!({"Statement": [{
            "Effect": "Allow", "Principal": {"Service": ["ec2.amazonaws.com"]},
            "Action": "sts:AssumeRole",
        }]}),
        managed: vec!["arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy".into()],
        inline_names: vec![],
        inline: None,
        profiles: vec!["theirs".into()],
    };
    (inputs, fact)
}

#[test]
fn an_existing_role_is_judged_and_neither_changed_nor_removed() {
    let (inputs, role) = with_role();
    let desired = desired::desired(&inputs);
    let names: Vec<&str> = desired.roles.iter().map(|role| role.name.as_str()).collect();
    assert_eq!(names, ["prod-cluster", "prod-system-node"]);
    let mut facts = complete(&desired);
    let refused = plan(&desired, &facts).unwrap_err().to_string();
    assert!(refused.starts_with("roles.gpuNode: there is no role"), "{refused}");
    facts.existing = vec![role.clone()];
    assert_eq!(plan(&desired, &facts).unwrap(), []);
    let lacking = super::lacking(&desired, &facts);
    assert!(lacking[0].starts_with("the role `gpu` has no AmazonEKS_CNI_Policy"), "{lacking:?}");
    facts.existing[0].trust = json!({"Statement": [{
        "Effect": "Allow", "Principal": {"Service": "eks.amazonaws.com"}, "Action": "sts:AssumeRole",
    }]});
    let refused = plan(&desired, &facts).unwrap_err().to_string();
    assert!(refused.contains("ec2.amazonaws.com may not assume the role `gpu`"), "{refused}");
    let down = teardown(&inputs.scope, &facts);
    assert!(
        down.iter().all(|step| !step.name.contains("theirs") && step.name != "gpu"),
        "{down:?}"
    );
}
