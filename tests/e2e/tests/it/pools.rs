//! One pool of a running fleet: added, resized, removed, and a failed node of one replaced; nothing
//! else is touched.

use contract::ExitCode;
use e2e::torture::calls::of_control;
use e2e::torture::lives::{Stage, Way};
use e2e::{Finished, World};

/// `control pool VERB … -f FLEET --agent-tarball …`.
async fn pool(stage: &Stage, words: &[&str]) -> Finished {
    let (fleet, tarball) = (stage.fleet.to_str().unwrap(), stage.tarball.to_str().unwrap());
    let more = ["-f", fleet, "--agent-tarball", tarball, "--yes", "-o", "json"];
    stage.world.control(&[&["pool"], words, &more].concat()).await.unwrap()
}

/// The operations by which `control` has changed something since then; its lease is a parameter.
async fn changes_since(stage: &Stage, since: usize) -> Vec<String> {
    let calls = of_control(&stage.account.calls_since(since).await.unwrap());
    let changing = calls.iter().filter(|call| !call.is_read() && call.service != "ssm");
    changing.map(|call| call.operation.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_comes_grows_and_goes_and_nothing_else_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await.unwrap();
    stage.run(Way::Up).await.unwrap().expect(ExitCode::Success).unwrap();
    // The network has drifted from its file: that is not this verb's business.
    let text = std::fs::read_to_string(&stage.fleet).unwrap().replace("research", "training");
    let text = format!("# Ours.\n{text}");
    std::fs::write(&stage.fleet, &text).unwrap();
    let before = stage.account.holds().await.unwrap();

    let since = stage.account.calls_so_far().await.unwrap();
    let add = ["add", "web", "--class", "apps", "--instance-type", "m6i.large", "--nodes", "1"];
    let added = pool(&stage, &add).await.expect(ExitCode::Success).unwrap().json().unwrap();
    assert_eq!(added["pools"][0]["ready"], 1, "{added:#}");
    assert_eq!(added["layers"].as_array().unwrap().len(), 1, "{added:#}");
    assert_eq!(changes_since(&stage, since).await, ["CreateLaunchTemplate", "CreateNodegroup"]);
    let line = "  - {name: web, class: apps, instanceType: m6i.large, \
                size: {min: 0, desired: 1, max: 1}}\n";
    let with = format!("{text}{line}");
    assert_eq!(std::fs::read_to_string(&stage.fleet).unwrap(), with);

    let since = stage.account.calls_so_far().await.unwrap();
    let scaled = pool(&stage, &["scale", "web", "2"]).await.expect(ExitCode::Success).unwrap();
    assert_eq!(scaled.json().unwrap()["pools"][0]["ready"], 2, "{}", scaled.stdout);
    assert_eq!(changes_since(&stage, since).await, ["UpdateNodegroupConfig"]);
    let grown = with.replace("{min: 0, desired: 1, max: 1}}\n", "{min: 0, desired: 2, max: 2}}\n");
    assert_eq!(std::fs::read_to_string(&stage.fleet).unwrap(), grown);
    let again = pool(&stage, &["scale", "web", "2"]).await.expect(ExitCode::Success).unwrap();
    assert_eq!(again.json().unwrap()["changed"], 0, "{}", again.stdout);

    for (words, code) in [
        (&["scale", "none", "2"][..], ExitCode::Usage),
        (&["add", "web", "--instance-type", "m6i.large", "--nodes", "1"], ExitCode::Usage),
        (&["rm", "system"], ExitCode::PreflightBlocked),
        (&["scale", "web", "100000"], ExitCode::PreflightBlocked),
    ] {
        pool(&stage, words).await.expect(code).unwrap();
        assert_eq!(std::fs::read_to_string(&stage.fleet).unwrap(), grown, "{words:?}");
    }

    pool(&stage, &["rm", "web"]).await.expect(ExitCode::Success).unwrap();
    assert_eq!(std::fs::read_to_string(&stage.fleet).unwrap(), text);
    stage.account.comes_to(&before).await.unwrap();
    stage.run(Way::Down).await.unwrap().expect(ExitCode::Success).unwrap();
    stage.world.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_fails_is_replaced_and_what_was_known_of_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let gear = ["--kubernetes", "standin", "--nodes", "process"];
    let world = World::up(&dir.path().join("lab"), &gear).await.unwrap();
    let file = dir.path().join("fleet.yaml");
    let text = crate::fleet_of(1);
    let pool = "class: gpu, instanceType";
    assert!(text.contains(pool));
    std::fs::write(&file, text.replace(pool, "class: gpu, replaceFailed: 1, instanceType"))
        .unwrap();
    let fault = world.lab("fault", &["gpu/0", "gpu-lost=3"]).await.unwrap();
    fault.expect(ExitCode::Success).unwrap();

    let evidence = dir.path().join("evidence");
    let (file, kept) = (file.to_str().unwrap(), evidence.to_str().unwrap());
    let up = world.control(&["up", "-f", file, "--yes", "-o", "json", "--evidence", kept]).await;
    let up = up.unwrap();
    let report = up.json().unwrap();
    let replaced = &report["replaced"][0];
    assert_eq!(replaced["pool"], "gpu", "{report:#}");
    let path = replaced["evidence"].as_str().unwrap();
    let known: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(known["node"]["instance"], replaced["instance"]);
    assert_eq!(known["node"]["reasons"][0]["reason"], replaced["reason"]);
    assert!(known["console"].as_str().unwrap().contains("ROLLCALL {"), "{known:#}");
    assert!(!known["evidence"].as_array().unwrap().is_empty(), "{known:#}");
    let up = up.expect(ExitCode::Success).unwrap();
    assert_eq!((&report["nodes"]["ready"], &report["nodes"]["failed"]), (&2.into(), &0.into()));
    assert!(up.code == 0 && report["reasons"].as_object().unwrap().is_empty(), "{report:#}");

    world.control(&["down", "--yes"]).await.unwrap().expect(ExitCode::Success).unwrap();
    world.down().await.unwrap();
}
