//! `diagnose` on the same nodes: it agrees with the join, and touches nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use contract::diagnosis::CheckState;
use contract::{Diagnosis, Phase};

use super::*;
use crate::diagnose::{judge, survey};

async fn look(world: &World) -> Diagnosis {
    let deadline = Deadline::within(Duration::from_secs(20));
    judge::judge(&Box::pin(survey::look(&world.node(), deadline)).await)
}

fn state(diagnosis: &Diagnosis, phase: Phase) -> CheckState {
    diagnosis.phases.iter().find(|check| check.phase == phase).unwrap().state
}

/// Every file below `root` with its content.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => open.push(path),
                path => _ = files.insert(path.clone(), std::fs::read(path).unwrap()),
            }
        }
    }
    files
}

#[tokio::test]
async fn before_the_join_nothing_is_wrong_and_nothing_is_touched() {
    let world = World::new(0).await;
    let before = tree(world.dir.path());
    let diagnosis = look(&world).await;
    assert_eq!(tree(world.dir.path()), before);
    assert_eq!(world.starts(), Vec::<String>::new());
    assert_eq!(diagnosis.outcome, JoinOutcome::Joining, "{diagnosis:#?}");
    assert_eq!(diagnosis.reasons, []);
    assert_eq!(state(&diagnosis, Phase::Preflight), CheckState::Passed);
    assert_eq!(state(&diagnosis, Phase::Cni), CheckState::Passed);
    for phase in [Phase::Bootstrap, Phase::Register, Phase::Ready] {
        assert_eq!(state(&diagnosis, phase), CheckState::Unknown, "{phase}");
    }
    let asked_to_change = |r: &String| r.starts_with("DELETE") || r.starts_with("PATCH");
    assert!(!world.api.requests().iter().any(asked_to_change));
    assert_eq!(world.aws.requests().iter().filter(|r| r.contains("PutParameter")).count(), 0);
}

#[tokio::test]
async fn a_ready_node_is_called_ready() {
    let world = World::new(0).await;
    world.prove().await;
    // What is delivered meanwhile is written down: it is not the look that writes.
    until(|| world.root().path("/var/lib/rollcall/spool/tag.json").exists()).await;
    let before = tree(world.dir.path());
    let diagnosis = look(&world).await;
    assert_eq!(tree(world.dir.path()), before);
    assert_eq!(diagnosis.outcome, JoinOutcome::Ready, "{diagnosis:#?}");
    assert_eq!(diagnosis.join.unwrap().outcome, JoinOutcome::Ready);
    assert_eq!(diagnosis.instance.name, "ip-10-0-1-7.ec2.internal");
}

#[tokio::test]
async fn it_names_what_the_join_named() {
    let world = World::new(8).await;
    let (_, report) = world.prove().await;
    let diagnosis = look(&world).await;
    assert_eq!(diagnosis.outcome, JoinOutcome::Failed);
    assert_eq!(diagnosis.cause().unwrap().reason, report.cause().unwrap().reason);
    assert!(diagnosis.fix.unwrap().contains("terminate-instances --instance-ids i-0abc"));
    assert!(!world.is_admitted());

    let world = World::new(0).await;
    std::fs::write(world.root().path("/config-fails"), "").unwrap();
    world.prove().await;
    let diagnosis = look(&world).await;
    let cause = diagnosis.cause().unwrap();
    assert_eq!(cause.reason, contract::Reason::NodeadmConfigFailed);
    assert!(cause.summary.ends_with("no such luck"), "{}", cause.summary);
    assert_eq!(world.starts(), ["config"], "it was not run again");
}

#[tokio::test]
async fn a_look_ends_when_the_metadata_service_is_silent() {
    let world = World::new(0).await;
    let node = Node { imds: Arc::new(Imds::at("http://127.0.0.1:1")), ..world.node() };
    let began = std::time::Instant::now();
    let deadline = Deadline::within(Duration::from_secs(2));
    let diagnosis = judge::judge(&Box::pin(survey::look(&node, deadline)).await);
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_eq!(diagnosis.cause().unwrap().reason, contract::Reason::ImdsUnreachable);
    assert_eq!(diagnosis.outcome, JoinOutcome::Failed);
}
