//! A gate that a whole pool fails does not black out the fleet: the breaker opens, the nodes join
//! with the reason, and it closes when they are whole again.

use std::path::PathBuf;
use std::time::Duration;

use contract::ExitCode;
use e2e::World;
use e2e::suite::poll;
use serde_json::Value;

const NODES: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_fails_as_a_whole_joins_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("lab");
    let world = World::up(&at, &["--kubernetes", "standin", "--nodes", "process"]).await.unwrap();
    let faults: Vec<String> = (0..NODES).map(|index| format!("gpu/{index}")).collect();
    for target in &faults {
        let laid = world.lab("fault", &[target, "gpu-missing"]).await.unwrap();
        laid.expect(ExitCode::Success).unwrap();
    }
    let file = dir.path().join("fleet.yaml");
    std::fs::write(&file, crate::fleet_of(NODES)).unwrap();
    let file = file.to_str().unwrap();
    let up = ["up", "-f", file, "--yes", "-o", "json"];
    let failed = world.control(&up).await.unwrap().expect(ExitCode::NodesFailed).unwrap();
    let failed = failed.json().unwrap();
    assert_eq!(failed["reasons"]["GpuCountShort"].as_array().unwrap().len(), NODES, "{failed:#}");
    let policy = policy(&world).await;
    assert_eq!(policy["breakers"]["GpuCountShort"]["failed"], NODES, "{policy:#}");

    let roots = roots(&world).await;
    assert_eq!(roots.len(), NODES);
    until("the nodes have joined with the reason", || {
        roots.iter().all(|root| {
            let report = report(root);
            let names = report["reasons"].as_array().cloned().unwrap_or_default();
            let has = |name: &str| names.iter().any(|finding| finding["reason"] == name);
            report["outcome"] == "failed" && has("GpuCountShort") && has("GateBreakerOpen")
                || report["outcome"] == "ready" && has("GateBreakerOpen")
        }) && roots.iter().all(|root| root.join("run/rollcall-gate/admitted").exists())
    })
    .await;

    for target in &faults {
        let lifted = world.lab("fault", &[target, "clear"]).await.unwrap();
        lifted.expect(ExitCode::Success).unwrap();
    }
    // Each node's condition says so some seconds later: one good look is not believed.
    let whole = async || Ok(world.control(&["status"]).await?.expect(ExitCode::Success).ok());
    poll::until(Duration::from_secs(120), "every node is whole again", whole).await.unwrap();
    let up = world.control(&up).await.unwrap().expect(ExitCode::Success).unwrap().json().unwrap();
    assert_eq!(up["nodes"]["ready"], NODES + 1, "{up:#}");
    let policy = self::policy(&world).await;
    assert!(policy["breakers"].is_null(), "{policy:#}");
    let down = world.control(&["down", "--yes", "-o", "json"]).await.unwrap();
    let down = down.expect(ExitCode::Success).unwrap().json().unwrap();
    assert_eq!(down["leftovers"], 0, "{down:#}");
    world.down().await.unwrap();
}

fn report(root: &std::path::Path) -> Value {
    let text = std::fs::read_to_string(root.join("run/rollcall/report.json")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

async fn roots(world: &World) -> Vec<PathBuf> {
    let status = world.lab_status().await.unwrap();
    let nodes = status["nodes"].as_array().unwrap().iter();
    let of_pool = nodes.filter(|node| node["pool"] == "gpu");
    of_pool.map(|node| PathBuf::from(node["root"].as_str().unwrap())).collect()
}

/// The policy as `control` wrote it last, from the emulator's journal.
async fn policy(world: &World) -> Value {
    let endpoint = world.programs.env.iter().find(|(key, _)| key == "AWS_ENDPOINT_URL").unwrap();
    let output = tokio::process::Command::new("curl")
        .args(["-sf", "--max-time", "20", &format!("{}/_control/calls", endpoint.1)])
        .output();
    let calls: Value = serde_json::from_slice(&output.await.unwrap().stdout).unwrap();
    let last = calls.as_array().unwrap().iter().rev().find(|call| {
        call["op"] == "PutParameter"
            && call["params"]["Name"] == "/rollcall-control/prod/gpu/policy"
    });
    let value = last.expect("control has written no policy")["params"]["Value"].as_str().unwrap();
    serde_json::from_str(value).unwrap()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(120), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
