//! The join is killed at every point that it lists itself, and comes to the same end: every file that
//! it answers for, every parameter and every tag, as on a node that nobody disturbed; nothing twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use contract::ExitCode;
use e2e::World;
use serde_json::Value;

/// What a join answers for on its node.
const FILES: [&str; 8] = [
    "run/rollcall/report.json",
    "run/rollcall-gate/admitted",
    "var/lib/rollcall/journal.json",
    "var/lib/rollcall/spool/tag.json",
    "var/lib/kubelet/kubeconfig",
    "etc/kubernetes/kubelet/config.json",
    "etc/eks/kubelet/environment",
    "etc/rollcall/agent.yaml",
];

/// How long a pool of one node per point may take to come up.
const UP: Duration = Duration::from_secs(900);

/// Points that only a join that fails and heals comes to.
const OF_FAILURES: [&str; 3] = ["keep-evidence", "put-report", "delete-report"];

/// One node of the pool: where it is killed, if anywhere, and whether it has to fail first.
struct Story {
    point: Option<(usize, String)>,
    fails: bool,
}

fn stories(points: &[String]) -> Vec<Story> {
    let of_failures = |point: &str| OF_FAILURES.iter().any(|effect| point.ends_with(effect));
    let mut stories = vec![Story { point: None, fails: false }, Story { point: None, fails: true }];
    for (index, point) in points.iter().enumerate() {
        let fails = of_failures(point);
        stories.push(Story { point: Some((index + 1, point.clone())), fails });
    }
    stories
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a node for each of some forty points: make torture-crashes"]
async fn killed_at_any_point_the_join_comes_to_the_same_end() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("lab");
    let world = World::up(&at, &["--kubernetes", "standin", "--nodes", "process"]).await.unwrap();
    let points = crash_points(&world).await;
    let stories = stories(&points);
    for (index, story) in stories.iter().enumerate() {
        let target = format!("gpu/{index}");
        if let Some((number, _)) = &story.point {
            lay(&world, &target, &format!("join-dies={number}")).await;
        }
        if story.fails {
            lay(&world, &target, "gpu-missing").await;
        }
    }
    let file = dir.path().join("fleet.yaml");
    std::fs::write(&file, crate::fleet_of(stories.len())).unwrap();
    let up = ["up", "-f", file.to_str().unwrap(), "--yes", "-o", "json"];
    let up = world.programs.run("control", &up, e2e::programs::Output::Captured, UP).await;
    let failing = stories.iter().filter(|story| story.fails).count();
    let up = up.unwrap().expect(ExitCode::NodesFailed).unwrap().json().unwrap();
    assert_eq!(up["reasons"]["GpuCountShort"].as_array().unwrap().len(), failing, "{up:#}");

    let nodes = nodes(&world).await;
    assert_eq!(nodes.len(), stories.len());
    until("the failed nodes have left evidence and reported", || {
        stories.iter().zip(&nodes).filter(|(story, _)| story.fails).all(|(_, node)| {
            let spool = node.json("var/lib/rollcall/spool/report.json");
            let journal = node.json("var/lib/rollcall/journal.json");
            spool["delivered"] == true && journal["effects"]["keepEvidence"]["done"] == true
        })
    })
    .await;
    for (index, _) in stories.iter().enumerate().filter(|(_, story)| story.fails) {
        let target = format!("gpu/{index}");
        world.lab("fault", &[&target, "clear"]).await.unwrap().expect(ExitCode::Success).unwrap();
    }
    until("every node is Ready and has said so", || {
        nodes.iter().all(|node| {
            node.json("run/rollcall/report.json")["outcome"] == "ready"
                && node.json("var/lib/rollcall/spool/tag.json")["message"] == "ready"
                && !node.root.join("var/lib/rollcall/spool/report.json").exists()
        })
    })
    .await;

    let calls = calls(&world).await;
    for (story, node) in stories.iter().zip(&nodes) {
        let undisturbed = &nodes[usize::from(story.fails)];
        let point = story.point.as_ref().map_or("nowhere", |(_, point)| point.as_str());
        let killed = node.was_killed();
        assert_eq!(killed, usize::from(story.point.is_some()), "killed at {point}");
        assert_eq!(node.end(), undisturbed.end(), "killed at {point}");
        once_only(node, point, story.fails, &calls);
    }
    let down = world.control(&["down", "--yes", "-o", "json"]).await.unwrap();
    down.expect(ExitCode::Success).unwrap();
    world.down().await.unwrap();
}

/// Counts what was done to the world outside the node's own state.
fn once_only(node: &Node, point: &str, fails: bool, calls: &[Value]) {
    for phase in ["config", "run"] {
        let log = node.text(&format!("run/systemd-double/rollcall-nodeadm@{phase}.service.log"));
        let runs = log.matches("Checking user is root").count();
        assert_eq!(runs, 1, "nodeadm's {phase} phase, killed at {point}");
    }
    let count = |operation: &str| {
        let of_node = |call: &&Value| {
            call["op"] == operation
                && call["status"] == 200
                && call["caller"].as_str().unwrap_or_default().ends_with(&node.instance)
        };
        calls.iter().filter(of_node).count()
    };
    // A call that was answered and not recorded is made again, and changes nothing: AWS has no
    // token that would tell.
    let again = |effect: &str| usize::from(point == format!("unrecorded-{effect}"));
    let failed = usize::from(fails);
    for (operation, effect, expected) in [
        ("PutParameter", "put-report", failed),
        ("DeleteParameter", "delete-report", failed),
        ("CreateTags", "tag-instance", 1 + failed),
    ] {
        let made = count(operation);
        let most = expected + again(effect);
        assert!((expected..=most).contains(&made), "{made} × {operation}, killed at {point}");
    }
}

/// A node of the pool, as the lab knows it.
struct Node {
    instance: String,
    name: String,
    root: PathBuf,
    address: String,
}

impl Node {
    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join(path)).unwrap_or_default()
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path)).unwrap_or_default()
    }

    fn was_killed(&self) -> usize {
        let log = self.text("run/systemd-double/rollcall-join.service.log");
        log.matches("code=killed, status=9").count()
    }

    /// What the join has left, but for times, the number of the proving, and whose it is.
    fn end(&self) -> BTreeMap<String, String> {
        FILES.iter().map(|path| ((*path).to_owned(), self.comparable(path))).collect()
    }

    fn comparable(&self, path: &str) -> String {
        let mut text = self.text(path);
        if let Ok(mut value) = serde_json::from_str::<Value>(&text) {
            forget_times(&mut value);
            text = serde_json::to_string_pretty(&value).unwrap();
        }
        let boot = self.json("run/rollcall/report.json")["boot"].as_str().unwrap_or("").to_owned();
        let ip = self.name.trim_start_matches("ip-").split('.').next().unwrap().replace('-', ".");
        for (own, word) in [
            (self.instance.as_str(), "INSTANCE"),
            (self.name.as_str(), "NAME"),
            (self.address.as_str(), "ADDRESS"),
            (ip.as_str(), "IP"),
            (boot.as_str(), "BOOT"),
            (self.root.to_str().unwrap(), "ROOT"),
            ("us-east-1a", "ZONE"),
            ("us-east-1b", "ZONE"),
        ] {
            text = text.replace(own, word);
        }
        text
    }
}

/// Takes out what may differ: times, and the number of the proving; and a GPU's own identity.
fn forget_times(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for key in ["startedAt", "ms", "started", "updated", "deadline", "attempt", "uuid"] {
                map.remove(key);
            }
            map.values_mut().for_each(forget_times);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_times),
        _ => {}
    }
}

async fn crash_points(world: &World) -> Vec<String> {
    let listed = world
        .programs
        .run(
            "rollcall-agent",
            &["crash-points"],
            e2e::programs::Output::Captured,
            Duration::from_secs(30),
        )
        .await
        .unwrap();
    let points: Vec<String> = listed.stdout.lines().map(str::to_owned).collect();
    assert!(points.len() > 30, "{points:?}");
    points
}

async fn lay(world: &World, target: &str, fault: &str) {
    world.lab("fault", &[target, fault]).await.unwrap().expect(ExitCode::Success).unwrap();
}

async fn nodes(world: &World) -> Vec<Node> {
    let status = world.lab_status().await.unwrap();
    let mut nodes: Vec<(u64, Node)> = status["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|node| node["pool"] == "gpu")
        .map(|node| {
            let text = |key: &str| node[key].as_str().unwrap().to_owned();
            let found = Node {
                instance: text("instance"),
                name: text("name"),
                root: Path::new(&text("root")).to_owned(),
                address: text("address"),
            };
            (node["index"].as_u64().unwrap(), found)
        })
        .collect();
    nodes.sort_by_key(|(index, _)| *index);
    nodes.into_iter().map(|(_, node)| node).collect()
}

async fn calls(world: &World) -> Vec<Value> {
    let endpoint = world.programs.env.iter().find(|(key, _)| key == "AWS_ENDPOINT_URL").unwrap();
    let output = tokio::process::Command::new("curl")
        .args(["-sf", "--max-time", "20", &format!("{}/_control/calls", endpoint.1)])
        .output();
    serde_json::from_slice(&output.await.unwrap().stdout).unwrap()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(240), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
