//! Two operators: one works, the other is told who does; a killed one is in nobody's way.

use std::process::Stdio;
use std::time::Duration;

use contract::ExitCode;
use e2e::World;
use e2e::programs::Output;
use e2e::torture::Blow;
use e2e::torture::account::Account;
use e2e::torture::calls::Call;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_do_not_both_work() {
    let dir = tempfile::tempdir().unwrap();
    let gear = ["--kubernetes", "standin", "--nodes", "process", "--speed", "0.0002"];
    let world = World::up(&dir.path().join("lab"), &gear).await.unwrap();
    let endpoint = world.programs.env.iter().find(|(key, _)| key == "AWS_ENDPOINT_URL").unwrap();
    let account = Account::at(&endpoint.1);
    let file = dir.path().join("fleet.yaml");
    std::fs::write(&file, crate::fleet_of(1)).unwrap();
    let up = ["up", "-f", file.to_str().unwrap(), "--yes", "--through", "network"];

    // The first one stands still in the middle of its work.
    let call = Call {
        service: "ec2".into(),
        operation: "CreateVpc".into(),
        resource: "prod".into(),
        before: 0,
    };
    account.aim(Blow::Kill, &call).await.unwrap();
    let mut first = tokio::process::Command::new(world.programs.bin.join("control"))
        .args(up)
        .current_dir(&world.programs.root)
        .envs(world.programs.env.iter().map(|(key, value)| (key, value)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let held = tokio::time::timeout(Duration::from_secs(60), async {
        while !account.holds_a_call().await.unwrap() {}
    });
    held.await.unwrap();
    let pid = first.id().unwrap();

    let calls = account.calls_so_far().await.unwrap();
    let mut other = world.programs.clone();
    other.env.push(("AWS_SDK_UA_APP_ID".into(), "second".into()));
    let second = other.run("control", &up, Output::Captured, Duration::from_secs(60)).await;
    let second = second.unwrap().expect(ExitCode::LeaseHeld).unwrap();
    for part in ["another run", ":user/operator`", &format!("pid {pid}"), "since 20"] {
        assert!(second.stderr.contains(part), "no `{part}` in:\n{}", second.stderr);
    }
    // What the first does beside the held call is not the second's doing.
    let mut made = account.calls_since(calls).await.unwrap();
    let of_second = |call: &Value| call["userAgent"].as_str().unwrap().contains("app/second");
    made.as_array_mut().unwrap().retain(of_second);
    let made = e2e::torture::calls::of_control(&made);
    assert!(!made.is_empty(), "the second calls under its name");
    assert!(made.iter().all(Call::is_read), "the second changes something: {made:?}");

    // Killed on this machine, it is followed up at once.
    first.kill().await.unwrap();
    account.lift().await.unwrap();
    world.control(&up).await.unwrap().expect(ExitCode::Success).unwrap();
    let vpcs = account.holds().await.unwrap();
    assert_eq!(vpcs.iter().filter(|line| line.starts_with("vpc prod")).count(), 1, "{vpcs:?}");

    // Gone with the fleet.
    world.control(&["down", "--yes"]).await.unwrap().expect(ExitCode::Success).unwrap();
    assert!(!account.has_leases().await.unwrap());
    world.down().await.unwrap();
}
