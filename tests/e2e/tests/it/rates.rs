//! `control` keeps within the account's rate limits by itself.

use std::time::Duration;

use contract::ExitCode;
use e2e::torture::lives::{Stage, Way};
use serde_json::json;

/// Pools that are made side by side; an account may have 30 node groups.
const POOLS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn an_undisturbed_up_of_a_large_fleet_is_never_throttled() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await.unwrap();
    // The longest way: every endpoint that a closed network needs, and many pools at once.
    let mut fleet = crate::networks::fleet("prod", "network: {nat: none, zones: 2}\n");
    fleet.push_str(crate::networks::SYSTEM);
    for number in 1..POOLS {
        fleet.push_str(&format!(
            "  - {{name: p{number}, class: apps, instanceType: m6i.large, size: {{min: 0, desired: 0, max: \
             1}}}}\n"
        ));
    }
    std::fs::write(&stage.fleet, fleet).unwrap();
    stage.account.limit(&json!({"published": true})).await.unwrap();
    let since = stage.account.calls_so_far().await.unwrap();
    let up = stage.run_within(Way::Up, Duration::from_secs(600)).await.unwrap();
    up.expect(ExitCode::Success).unwrap();

    let calls = stage.account.calls_since(since).await.unwrap();
    let calls = calls.as_array().unwrap();
    let of = |operation: &str| calls.iter().filter(|call| call["op"] == operation).count();
    // More than the account takes at once: they did wait for each other.
    assert!(of("CreateVpcEndpoint") > 4 && of("CreateLaunchTemplate") >= POOLS);
    let refused: Vec<_> = calls
        .iter()
        .filter(|call| {
            ["RequestLimitExceeded", "ThrottlingException"].map(Into::into).contains(&call["code"])
        })
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
    stage.world.down().await.unwrap();
}
