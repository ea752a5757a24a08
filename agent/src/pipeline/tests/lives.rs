//! Lives: a spot notice, maintenance, a warm pool, a reboot, a clock that steps.

use contract::Reason;

use super::*;

impl World {
    /// EC2 says `text` under a path of the metadata service that ends in `name`.
    fn says(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.root().path("/imds")).unwrap();
        std::fs::write(self.root().path("/imds").join(name), text).unwrap();
    }

    fn unsays(&self, name: &str) {
        std::fs::remove_file(self.root().path("/imds").join(name)).unwrap();
    }
}

const SPOT: &str = r#"{"action":"terminate","time":"2026-11-20T20:08:22Z"}"#;
const REBALANCE: &str = r#"{"noticeTime":"2026-11-20T20:00:22Z"}"#;
const REBOOT: &str = r#"[{"NotBefore":"21 Jan 2027 09:00:43 GMT","Code":"system-reboot",
    "Description":"scheduled reboot","EventId":"instance-event-1","State":"active"}]"#;

#[tokio::test]
async fn a_spot_instance_that_is_taken_back_does_not_register() {
    let world = World::new(0).await;
    world.says("instance-action", SPOT);
    let (open, report) = world.prove().await;
    assert!(!open);
    assert_eq!(report.outcome, JoinOutcome::Failed);
    let cause = report.cause().unwrap();
    assert_eq!(cause.reason, Reason::SpotInterrupted);
    assert_eq!(
        cause.summary,
        "EC2 takes this spot instance back: `terminate` at 2026-11-20T20:08:22Z"
    );
    assert_eq!(world.starts(), ["config"]);
    assert!(!world.is_admitted());
    // A notice may be taken back as well.
    world.unsays("instance-action");
    let (open, report) = world.prove().await;
    assert!(open, "{report:#?}");
    assert_eq!(report.reasons, []);
}

#[tokio::test]
async fn what_is_only_announced_is_reported_and_keeps_nobody_out() {
    for (name, text, reason) in [
        ("rebalance", REBALANCE, Reason::CapacityEnding),
        ("scheduled", REBOOT, Reason::MaintenanceScheduled),
    ] {
        let world = World::new(0).await;
        world.says(name, text);
        let (open, report) = world.prove().await;
        assert!(open, "{report:#?}");
        assert_eq!(report.outcome, JoinOutcome::Ready);
        assert_eq!(report.cause().unwrap().reason, reason);
        assert!(world.is_admitted());
    }
}

#[tokio::test]
async fn a_node_in_a_warm_pool_is_proven_and_waits_for_service() {
    let world = World::new(0).await;
    world.says("target-lifecycle-state", "Warmed:Running");
    let node = world.node();
    let recorder = Recorder::new(world.root(), &node.boot);
    let walk = Walk::new(&node, &recorder);
    let mut walk = walk;
    let join = async {
        let first = Box::pin(walk.once()).await.is_ok();
        let again = walk.begins_anew();
        (first, again, Box::pin(walk.once()).await.is_ok(), walk.begins_anew())
    };
    let outside = async {
        let waits = || {
            let report = world.report();
            report.phases.last().is_some_and(|phase| {
                phase.detail.as_deref().is_some_and(|text| text.contains("Warmed:Running"))
            })
        };
        until(|| world.root().path(REPORT_PATH).exists() && waits()).await;
        let report = world.report();
        assert_eq!(report.outcome, JoinOutcome::Joining);
        assert_eq!((report.reasons, report.deadline), (vec![], None));
        assert_eq!(world.starts(), ["config"], "kubelet waits");
        assert!(!world.is_admitted());
        world.says("target-lifecycle-state", "InService");
    };
    let (ends, ()) = tokio::join!(join, outside);
    assert_eq!(ends, (false, true, true, false), "proven once more, then in");
    assert_eq!(world.starts(), ["config", "run"]);
    let report = world.report();
    assert_eq!((report.outcome, report.attempt), (JoinOutcome::Ready, 2));
}

#[tokio::test]
async fn a_reboot_proves_everything_anew() {
    let world = World::new(0).await;
    world.prove().await;
    // /run is empty after a boot, and kubelet does not start by itself.
    std::fs::remove_dir_all(world.root().path("/run")).unwrap();
    std::fs::remove_file(world.root().path("/kubelet-runs")).unwrap();
    let node = Node { boot: "boot-2".into(), ..world.node() };
    let recorder = Recorder::new(world.root(), &node.boot);
    let mut walk = Walk::new(&node, &recorder);
    let outside = async {
        // The Node object is still that of the last boot: it does not count.
        until(|| world.starts() == ["config", "run", "config", "run"]).await;
        let waits = || {
            let report = world.report();
            let last = report.phases.last();
            last.and_then(|phase| phase.detail.clone()).is_some_and(|d| d.contains("boot-1"))
        };
        until(waits).await;
        assert!(world.is_admitted());
    };
    tokio::select! {
        _ = Box::pin(walk.once()) => panic!("the Node object is of another boot"),
        () = outside => {}
    }
    assert_eq!(world.report().attempt, 1);
}
