//! Pools whose GPUs are offered by DRA, or not at all: `control up` proves them as well.

use contract::ExitCode;
use e2e::World;

#[tokio::test]
async fn pools_without_a_device_plugin_are_proven() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::up(
        &dir.path().join("lab"),
        &["--kubernetes", "standin", "--nodes", "process", "--speed", "0.002"],
    )
    .await
    .unwrap();
    let fleet = dir.path().join("fleet.yaml");
    let text = crate::fleet_of(1).replace(
        "desired: 1, max: 1}}\n  - {name: gpu",
        "desired: 1, max: 1}}\n  - {name: none, devicePlugin: none, class: gpu, \
         instanceType: g5.12xlarge, size: {desired: 1}}\n  - {name: gpu, devicePlugin: dra",
    );
    assert!(text.contains("devicePlugin: dra"), "{text}");
    std::fs::write(&fleet, text).unwrap();
    let up = world.control(&["up", "-f", fleet.to_str().unwrap(), "--yes", "-o", "json"]).await;
    let report = up.unwrap().expect(ExitCode::Success).unwrap().json().unwrap();
    assert_eq!(report["outcome"], "ready", "{report}");
    let status = world.status().await.unwrap();
    for node in status["nodes"].as_array().unwrap() {
        let offered = match node["pool"].as_str().unwrap() {
            "gpu" => serde_json::json!(4),
            _ => serde_json::Value::Null,
        };
        assert_eq!(node["gpus"]["offered"], offered, "{node}");
    }
    world.control(&["down", "--yes"]).await.unwrap().expect(ExitCode::Success).unwrap();
    world.down().await.unwrap();
}

/// MIG divides the GPUs of three pools, whose device plugins offer them by three strategies. What a pool says
/// of its GPUs is what its nodes' agents are told.
#[tokio::test]
async fn pools_that_mig_divides_are_proven_whatever_the_plugins_strategy() {
    let dir = tempfile::tempdir().unwrap();
    let gear = ["--kubernetes", "standin", "--nodes", "process", "--speed", "0.002"];
    let world = World::up(&dir.path().join("lab"), &gear).await.unwrap();
    let text = crate::fleet_of(1).replace(
        "desired: 1, max: 1}}\n  - {name: gpu",
        "desired: 1, max: 1}}\n\
         \x20 - {name: single, class: gpu, instanceType: p5.4xlarge, size: {desired: 1},\n\
         \x20    gpu: {migDevices: 7, minDriver: '570.1', xids: {43: {class: reset}}}}\n\
         \x20 - {name: mixed, class: gpu, instanceType: p5.48xlarge, size: {desired: 1}}\n\
         \x20 - {name: none, class: gpu, instanceType: p5.4xlarge, size: {desired: 1}}\n  - {name: gpu",
    );
    assert!(text.contains("name: mixed"), "{text}");
    let fleet = dir.path().join("fleet.yaml");
    std::fs::write(&fleet, text).unwrap();
    let seven = ["1g.10gb"; 7].join(",");
    for (node, strategy) in [("single/0", "single"), ("mixed/0", "mixed"), ("none/0", "none")] {
        let knobs = format!(r#"{{"migStrategy":"{strategy}"}}"#);
        for fault in [
            format!("mig-layout=0:{seven}"),
            format!("write=/var/lib/kubelet-standin/config.json:{knobs}"),
        ] {
            let laid = world.lab("fault", &[node, &fault]).await.unwrap();
            laid.expect(ExitCode::Success).unwrap();
        }
    }
    let up = world.control(&["up", "-f", fleet.to_str().unwrap(), "--yes", "-o", "json"]).await;
    let report = up.unwrap().expect(ExitCode::Success).unwrap().json().unwrap();
    assert_eq!(report["outcome"], "ready", "{report}");

    let status = world.status().await.unwrap();
    let node = |pool: &str| {
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["pool"] == pool).cloned().unwrap()
    };
    for (pool, devices) in [("single", 7), ("mixed", 7 + 7), ("none", 1), ("gpu", 4)] {
        let counted = &node(pool)["gpus"];
        assert_eq!(
            (&counted["expected"], &counted["offered"]),
            (&devices.into(), &devices.into()),
            "{pool}: {status:#}"
        );
    }
    let told = dir.path().join("lab/nodes").join(node("single")["instance"].as_str().unwrap());
    let told = std::fs::read_to_string(told.join("root/etc/rollcall/agent.yaml")).unwrap();
    let told: contract::AgentConfig = serde_yaml::from_str(&told).unwrap();
    assert_eq!((told.mig_devices, told.min_driver.as_deref()), (Some(7), Some("570.1")));
    assert!(told.xids.contains_key(&43), "{told:?}");

    let verify = world.control(&["verify", "-o", "json"]).await.unwrap().json().unwrap();
    let gpus = verify["checks"].as_array().unwrap().iter().find(|check| check["name"] == "gpus");
    assert_eq!(gpus.unwrap()["detail"], "26 of 26 proven and on offer", "{verify:#}");
    let name = node("mixed")["instance"].as_str().unwrap().to_owned();
    let screen = world.control(&["diagnose", &name]).await.unwrap();
    assert!(screen.stdout.contains("14 of 14 GPUs and MIG devices on offer"), "{}", screen.stdout);
    world.control(&["down", "--yes"]).await.unwrap().expect(ExitCode::Success).unwrap();
    world.down().await.unwrap();
}
