//! What EC2 does not launch is named in minutes, and not when EKS gives up after 25.

use contract::ExitCode;
use e2e::torture::lives::{Stage, Way};
use serde_json::{Value, json};

const POOLS: &str = "  - {name: walled, class: apps, instanceType: c6i.large, size: {min: 0, desired: 2}}\n  \
                     - {name: scarce, class: apps, instanceType: r6i.large, size: {min: 0, desired: 1}}\n";

/// Every launch of a type ends so.
fn refuse(kind: &str, code: &str, message: &str) -> Value {
    json!({"service": "autoscaling", "op": "Launch", "action": "error", "code": code,
           "message": message, "match": {"InstanceType": kind}})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_launched_is_named_and_comes_once_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await.unwrap();
    let system = crate::networks::SYSTEM;
    let fleet = crate::networks::fleet("prod", &format!("{system}{POOLS}"));
    std::fs::write(&stage.fleet, fleet).unwrap();
    let quota = "You have requested more vCPU capacity than your current vCPU limit of 2 allows";
    let none =
        "We currently do not have sufficient capacity in the Availability Zone you requested";
    let rules = json!([
        refuse("c6i.large", "VcpuLimitExceeded", quota),
        refuse("r6i.large", "InsufficientInstanceCapacity", none),
    ]);
    stage.account.lay(&rules).await.unwrap();

    // The rules stand, and nothing but `up` itself ends its wait: EKS says nothing for minutes.
    let up = stage.run(Way::Up).await.unwrap().expect(ExitCode::NodesFailed).unwrap();
    for said in ["VcpuQuotaExceeded", "CapacityInsufficient", "walled: ", quota, none] {
        assert!(up.stderr.contains(said), "no `{said}` in:\n{}", up.stderr);
    }
    assert!(!up.stderr.contains("control diagnose walled"), "{}", up.stderr);

    // What failed before is no reason not to wait for what comes now.
    stage.account.lift().await.unwrap();
    let up = stage.run(Way::Up).await.unwrap().expect(ExitCode::Success).unwrap();
    assert!(up.stderr.contains("4 nodes ready"), "{}", up.stderr);
    stage.run(Way::Down).await.unwrap().expect(ExitCode::Success).unwrap();
    stage.world.down().await.unwrap();
}
