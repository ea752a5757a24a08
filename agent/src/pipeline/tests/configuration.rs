//! Scripts of the user data that change the node's configuration while the join goes on.

use contract::names::NODEADM_DROPIN_DIR;
use contract::{Phase, Reason};

use super::*;

impl World {
    /// A user script writes a NodeConfig.
    fn writes(&self, spec: &str) {
        let text = format!("apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec: {spec}\n");
        let directory = self.root().path(NODEADM_DROPIN_DIR);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("50-script.yaml"), text).unwrap();
    }

    /// cloud-final runs until `end`; then the join goes on as the service does.
    async fn while_scripts_run(&self, end: impl Fn(&Self)) -> (bool, JoinReport) {
        let running = self.root().path("/scripts-run");
        std::fs::write(&running, "").unwrap();
        let node = self.node();
        let recorder = Recorder::new(self.root(), &node.boot);
        let join = async {
            let mut walk = Walk::new(&node, &recorder);
            loop {
                let open = Box::pin(walk.once()).await.is_ok();
                if !walk.begins_anew() {
                    return open;
                }
            }
        };
        let script = async {
            let waits = || self.report().phases.iter().any(|phase| phase.phase == Phase::Register);
            until(|| self.root().path(REPORT_PATH).exists() && waits()).await;
            end(self);
            std::fs::remove_file(&running).unwrap();
        };
        let (open, ()) = tokio::join!(join, script);
        (open, self.report())
    }
}

#[tokio::test]
async fn what_a_script_left_is_written_before_kubelet_starts() {
    let world = World::new(0).await;
    let flags = "{kubelet: {flags: ['--node-labels=rack=7']}}";
    let (open, report) = world.while_scripts_run(|world| world.writes(flags)).await;
    assert!(open, "{report:#?}");
    assert_eq!(world.starts(), ["config", "config", "run"], "the config phase ran again");
    assert_eq!((report.outcome, report.attempt), (JoinOutcome::Ready, 2));
    assert!(report.deadline.is_some(), "still within the time of the first");
}

#[tokio::test]
async fn a_script_that_changes_nothing_costs_nothing() {
    let world = World::new(0).await;
    let (open, report) = world.while_scripts_run(|_| ()).await;
    assert!(open, "{report:#?}");
    assert_eq!(world.starts(), ["config", "run"]);
    assert_eq!(report.attempt, 1);
}

#[tokio::test]
async fn what_a_script_left_is_held_to_the_same_rules() {
    let world = World::new(0).await;
    let flags = "{kubelet: {flags: ['--node-labels=node-role.kubernetes.io/gpu=']}}";
    let (open, report) = world.while_scripts_run(|world| world.writes(flags)).await;
    assert!(!open);
    assert_eq!(report.cause().unwrap().reason, Reason::NodeLabelForbidden);
    assert_eq!(world.starts(), ["config"]);
    assert!(!world.is_admitted());
}
