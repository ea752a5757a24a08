//! Whole lives in a lab of the test's own: a healthy fleet, a corrupted agent, an interrupted `up`.

use std::path::Path;
use std::time::Duration;

use contract::ExitCode;
use e2e::World;
use serde_json::Value;

/// One system node and two GPU nodes: the least that has every layer.
fn fleet(name: &str, agent: &str) -> String {
    format!(
        "apiVersion: rollcall.dev/v1alpha1\nkind: Fleet\nname: {name}\nregion: us-east-1\n\
         kubernetes: \"1.34\"\nagent: {agent}\nnetwork: {{cidr: 10.7.0.0/16, zones: 2, nat: one}}\n\
         pools:\n  - {{name: system, class: system, instanceType: m6i.large, \
         size: {{min: 1, desired: 1, max: 2}}}}\n  - {{name: gpu, class: gpu, \
         instanceType: g5.12xlarge, size: {{min: 0, desired: 2, max: 2}}}}\n"
    )
}

async fn world(dir: &Path) -> World {
    World::up(&dir.join("lab"), &["--kubernetes", "standin", "--nodes", "process"]).await.unwrap()
}

fn write_fleet(dir: &Path, agent: &str) -> String {
    let path = dir.join("fleet.yaml");
    std::fs::write(&path, fleet("prod", agent)).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn up(world: &World, file: &str) -> e2e::Finished {
    world.control(&["up", "-f", file, "--yes", "-o", "json"]).await.unwrap()
}

async fn gone(world: &World) {
    let down = world.control(&["down", "--yes", "-o", "json"]).await.unwrap();
    let down = down.expect(ExitCode::Success).unwrap().json().unwrap();
    assert_eq!(down["leftovers"], 0, "{down:#}");
    world.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn up_again_changes_nothing_and_down_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    let file = write_fleet(dir.path(), "{publish: true}");

    let first = up(&world, &file).await.expect(ExitCode::Success).unwrap().json().unwrap();
    assert_eq!(first["nodes"]["ready"], 3, "{first:#}");

    let calls_before = mutating_calls(&world).await;
    let second = up(&world, &file).await.expect(ExitCode::Success).unwrap().json().unwrap();
    assert_eq!(second["changed"], 0, "{second:#}");
    assert_eq!(mutating_calls(&world).await, calls_before, "the second up has changed something");

    gone(&world).await;
}

/// The calls that changed something, as the emulator's journal has them; the nodes' own apart.
async fn mutating_calls(world: &World) -> usize {
    let endpoint = world.programs.env.iter().find(|(key, _)| key == "AWS_ENDPOINT_URL").unwrap();
    let command = tokio::process::Command::new("curl")
        .args(["-sf", "--max-time", "10", &format!("{}/_control/calls", endpoint.1)])
        .output();
    let calls: Value = serde_json::from_slice(&command.await.unwrap().stdout).unwrap();
    let reads = ["Describe", "Get", "List", "Head", "Simulate", "AssumeRole"];
    calls
        .as_array()
        .unwrap()
        .iter()
        .filter(|call| !call["caller"].as_str().unwrap_or_default().contains(":assumed-role/"))
        .filter(|call| {
            let operation = call["op"].as_str().unwrap_or_default();
            !reads.iter().any(|read| operation.starts_with(read))
        })
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_one_wrong_byte_never_starts_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    let file = write_fleet(dir.path(), "{publish: true}");
    let fault = world.lab("fault", &["gpu/0", "agent-corrupt"]).await.unwrap();
    fault.expect(ExitCode::Success).unwrap();

    let result = up(&world, &file).await.expect(ExitCode::NodesFailed).unwrap().json().unwrap();
    assert!(result["reasons"]["AgentInstallFailed"].is_array(), "{result:#}");

    let diagnosis = world.control(&["diagnose", "gpu/0", "-o", "json"]).await.unwrap();
    let diagnosis = diagnosis.json().unwrap();
    assert_eq!(diagnosis["cause"]["reason"], "AgentInstallFailed", "{diagnosis:#}");

    let status = world.lab_status().await.unwrap();
    let node = status["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|node| node["pool"] == "gpu" && node["index"] == 0);
    let id = node.unwrap()["instance"].as_str().unwrap().to_owned();
    let binary = world.dir.join("nodes").join(&id).join("root/usr/bin/rollcall-agent");
    assert!(!binary.exists(), "the corrupted agent was installed on {id}");

    gone(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_up_says_how_to_go_on_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(dir.path()).await;
    let file = write_fleet(dir.path(), "{publish: true}");

    let interrupted = interrupt_up(&world, &file, Duration::from_secs(3)).await;
    assert_eq!(interrupted.code, ExitCode::Interrupted as i32, "{}", interrupted.stderr);
    assert!(interrupted.stderr.contains("control up"), "{}", interrupted.stderr);

    let result = up(&world, &file).await.expect(ExitCode::Success).unwrap().json().unwrap();
    assert_eq!(result["nodes"]["ready"], 3, "{result:#}");
    gone(&world).await;
}

/// Starts `up` and sends it SIGINT after a while, as Ctrl-C does.
async fn interrupt_up(world: &World, file: &str, after: Duration) -> e2e::Finished {
    use nix::sys::signal::{Signal, kill};
    let child = tokio::process::Command::new(world.programs.bin.join("control"))
        .args(["up", "-f", file, "--yes"])
        .envs(world.programs.env.iter().cloned())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    tokio::time::sleep(after).await;
    kill(pid, Signal::SIGINT).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output());
    let ended = ended.await.expect("`up` goes on after Ctrl-C").unwrap();
    e2e::Finished {
        code: ended.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
    }
}
