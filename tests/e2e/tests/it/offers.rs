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
