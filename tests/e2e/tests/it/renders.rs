//! What nodes would be handed, before the fleet stands and after, and what a plan says of its time.

use contract::ExitCode;
use e2e::Finished;
use e2e::torture::lives::{Stage, Way};

async fn control(stage: &Stage, words: &[&str], more: &[&str], code: ExitCode) -> Finished {
    let (fleet, tarball) = (stage.fleet.to_str().unwrap(), stage.tarball.to_str().unwrap());
    let args = [words, &["-f", fleet, "--agent-tarball", tarball], more].concat();
    stage.world.control(&args).await.unwrap().expect(code).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn user_data_is_shown_before_the_fleet_stands_and_is_what_nodes_get() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await.unwrap();
    let empty = stage.account.holds().await.unwrap();
    let render = ["render", "user-data", "gpu"];
    let early = control(&stage, &render, &["--explain"], ExitCode::Success).await.stdout;
    for line in [
        "gpu · 3 parts",
        "    gpus.count: 4\n        EC2: what the instance type has",
        "    spec.cluster.apiServerEndpoint: (known after: cluster)",
        "    sha256: ",
    ] {
        assert!(early.contains(line), "no `{line}` in {early}");
    }
    assert_eq!(stage.account.holds().await.unwrap(), empty, "a look has changed something");
    let plan = control(&stage, &["plan"], &["-o", "json"], ExitCode::Success).await.json().unwrap();
    assert!(plan["estimatedSeconds"].as_u64().unwrap() > 600, "{plan:#}");
    let cluster = &plan["layers"][2]["steps"][0];
    assert_eq!(cluster["why"], "does not exist (known after: network, identity)");
    let other = ["render", "user-data", "none"];
    let none = control(&stage, &other, &[], ExitCode::Usage).await;
    assert!(none.stderr.contains("it has system, gpu"), "{}", none.stderr);

    stage.run(Way::Up).await.unwrap().expect(ExitCode::Success).unwrap();
    let rendered = control(&stage, &render, &[], ExitCode::Success).await.stdout;
    let again = control(&stage, &render, &[], ExitCode::Success).await.stdout;
    assert_eq!(rendered, again, "it is not the same twice");
    let system = ["render", "user-data", "system"];
    let rendered = control(&stage, &system, &[], ExitCode::Success).await.stdout;
    let root = stage.world.dir.join("nodes");
    let node = std::fs::read_dir(root).unwrap().next().unwrap().unwrap().path();
    let written = std::fs::read_to_string(node.join("root/etc/rollcall/agent.yaml")).unwrap();
    let (first, _) = written.split_once("install:").unwrap();
    let indented: String = first.lines().map(|line| format!("    {line}\n")).collect();
    assert!(rendered.contains(&indented), "{rendered}\nbut the node got\n{written}");
    let steady = control(&stage, &["plan"], &["-o", "json"], ExitCode::Success).await;
    assert!(steady.json().unwrap()["estimatedSeconds"].is_null());
    stage.run(Way::Down).await.unwrap().expect(ExitCode::Success).unwrap();
    stage.world.down().await.unwrap();
}
