//! The join is killed at every point that it lists itself, and comes to the same end: every file that
//! it answers for, every parameter and every tag, as on a node that nobody disturbed; nothing twice.

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

/// The pools come up one after another: forty nodes that boot at once on two cores are slow enough
/// to be found slow, with reasons of their own.
const POOLS: [&str; 4] = ["gpu-a", "gpu-b", "gpu-c", "gpu-d"];

/// How long that many more may take to come up.
const UP: Duration = Duration::from_secs(900);

/// How long each of the others then has until it is Ready and every channel has said so.
const PATIENCE: Duration = Duration::from_secs(600);

/// Points that only a join that fails and heals comes to.
const OF_FAILURES: [&str; 3] = ["keep-evidence", "put-report", "delete-report"];

/// One node of the pool: where it is killed, if anywhere, and whether it has to fail first.
struct Story {
    point: Option<(usize, String)>,
    fails: bool,
}

/// A story for each point, spread over the pools after two of nodes in each that nobody kills: of a
/// pool that fails as a whole the breaker would open. The pools are alike in size.
fn stories(points: &[String]) -> Vec<Story> {
    let of_failures = |point: &str| OF_FAILURES.iter().any(|effect| point.ends_with(effect));
    let undisturbed = |fails: bool| POOLS.iter().map(move |_| Story { point: None, fails });
    let mut stories: Vec<Story> = undisturbed(false).chain(undisturbed(true)).collect();
    for (number, point) in (1..).zip(points) {
        stories.push(Story { point: Some((number, point.clone())), fails: of_failures(point) });
    }
    let all = stories.len().next_multiple_of(POOLS.len());
    stories.resize_with(all, || Story { point: None, fails: false });
    stories
}

/// The node of a pool that nobody killed.
fn undisturbed<'a>(nodes: &'a [Node], pool: &str, fails: bool) -> &'a Node {
    let mut of_pool = nodes.iter().filter(|node| node.pool == pool);
    of_pool.nth(usize::from(fails)).unwrap()
}

/// Where the node of a story is: its pool, and its number there.
const fn place(story: usize) -> (usize, usize) {
    (story % POOLS.len(), story / POOLS.len())
}

fn target(story: usize) -> String {
    let (pool, index) = place(story);
    format!("{}/{index}", POOLS[pool])
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
        let target = target(index);
        if let Some((number, _)) = &story.point {
            lay(&world, &target, &format!("join-dies={number}")).await;
        }
        if story.fails {
            lay(&world, &target, "gpu-missing").await;
        }
    }
    let file = dir.path().join("fleet.yaml");
    let file = file.to_str().unwrap();
    let each = stories.len() / POOLS.len();
    for up_to in 1..=POOLS.len() {
        std::fs::write(file, crate::fleet_with(&POOLS[..up_to], each)).unwrap();
        let up = ["up", "-f", file, "--yes", "-o", "json"];
        let up = world.programs.run("control", &up, e2e::programs::Output::Captured, UP).await;
        let up = up.unwrap().expect(ExitCode::NodesFailed).unwrap().json().unwrap();
        let begun = stories.iter().enumerate().filter(|(index, _)| place(*index).0 < up_to);
        let failing = begun.filter(|(_, story)| story.fails).count();
        let named = up["reasons"]["GpuCountShort"].as_array().map_or(0, Vec::len);
        assert_eq!(named, failing, "{up:#}");
    }

    let nodes = nodes(&world).await;
    assert_eq!(nodes.len(), stories.len());
    let failed = stories.iter().zip(&nodes).filter(|(story, _)| story.fails);
    until("has left evidence and reported", failed, |node| {
        let spool = node.json("var/lib/rollcall/spool/report.json");
        let journal = node.json("var/lib/rollcall/journal.json");
        spool["delivered"] == true && journal["effects"]["keepEvidence"]["done"] == true
    })
    .await;
    for (index, _) in stories.iter().enumerate().filter(|(_, story)| story.fails) {
        let target = target(index);
        world.lab("fault", &[&target, "clear"]).await.unwrap().expect(ExitCode::Success).unwrap();
    }
    until("is Ready and has said so", stories.iter().zip(&nodes), |node| {
        node.json("run/rollcall/report.json")["outcome"] == "ready"
            && node.json("var/lib/rollcall/spool/tag.json")["message"] == "ready"
            && !node.root.join("var/lib/rollcall/spool/report.json").exists()
    })
    .await;

    let calls = calls(&world).await;
    for (story, node) in stories.iter().zip(&nodes) {
        let undisturbed = undisturbed(&nodes, &node.pool, story.fails);
        let point = story.point.as_ref().map_or("nowhere", |(_, point)| point.as_str());
        assert_eq!(node.was_killed(), usize::from(story.point.is_some()), "killed at {point}");
        for path in FILES {
            let (end, expected) = (node.comparable(path), undisturbed.comparable(path));
            assert_eq!(end, expected, "`{path}`, killed at {point}");
        }
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
    for (operations, effects) in [
        (&["PutParameter", "DeleteParameter"][..], &["put-report", "delete-report"][..]),
        (&["CreateTags"], &["tag-instance"]),
    ] {
        let said: Vec<String> = calls
            .iter()
            .filter(|call| {
                operations.iter().any(|operation| call["op"] == *operation)
                    && call["status"] == 200
                    && call["caller"].as_str().unwrap_or_default().ends_with(&node.instance)
            })
            .map(message)
            .collect();
        let twice = said.windows(2).filter(|pair| pair[0] == pair[1]).count();
        let again = usize::from(may_be_unrecorded(point, effects));
        assert!(twice <= again, "twice, killed at {point}: {said:#?}");
        let is_due = fails || operations.contains(&"CreateTags");
        assert_eq!(!said.is_empty(), is_due, "{operations:?}, killed at {point}: {said:#?}");
    }
}

/// Whether a call of the channel that makes `effects` may have been answered and not recorded when the
/// join was killed at `point`. It is made again then, and changes nothing: AWS has no token that would
/// tell. The channels are at work side by side, and while evidence is gathered.
fn may_be_unrecorded(point: &str, effects: &[&str]) -> bool {
    let beside = OF_FAILURES.iter().chain(&["tag-instance"]).find(|at| point.ends_with(*at));
    match beside {
        Some(effect) if effects.contains(effect) => point.starts_with("unrecorded-"),
        Some(_) => true,
        None => false,
    }
}

/// What a call says: of a report its verdict, which is what it is written for.
fn message(call: &Value) -> String {
    let parameters = &call["params"];
    let verdict = |text: &str| text.split(" attempt=").next().unwrap_or_default().to_owned();
    let text = parameters["Description"].as_str().or(parameters["Tag.1.Value"].as_str());
    format!("{} {}", call["op"], verdict(text.unwrap_or_default()))
}

/// A node of the pool, as the lab knows it.
struct Node {
    pool: String,
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

    /// How it stands, for who reads that it does not stand well.
    fn stand(&self, story: &Story) -> String {
        let point = story.point.as_ref().map_or("nowhere", |(_, point)| point.as_str());
        let report = self.json("run/rollcall/report.json");
        format!(
            "{} {}: killed at {point} ({} times): {} {}\n  tag {}\n  report {}",
            self.instance,
            self.root.display(),
            self.was_killed(),
            report["outcome"],
            report["phases"],
            self.text("var/lib/rollcall/spool/tag.json"),
            self.text("var/lib/rollcall/spool/report.json"),
        )
    }

    fn was_killed(&self) -> usize {
        let log = self.text("run/systemd-double/rollcall-join.service.log");
        log.matches("code=killed, status=9").count()
    }

    /// A file that the join has left, but for times, the number of the proving, and whose it is.
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
            let own = ["startedAt", "ms", "started", "updated", "deadline", "attempt", "uuid"];
            map.retain(|key, _| !own.contains(&key.as_str()));
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
    let mut nodes: Vec<((usize, usize), Node)> = Vec::new();
    for node in status["nodes"].as_array().unwrap() {
        let text = |key: &str| node[key].as_str().unwrap().to_owned();
        let found = Node {
            pool: text("pool"),
            instance: text("instance"),
            name: text("name"),
            root: Path::new(&text("root")).to_owned(),
            address: text("address"),
        };
        let Some(pool) = POOLS.iter().position(|pool| *pool == found.pool) else { continue };
        let index = usize::try_from(node["index"].as_u64().unwrap()).unwrap();
        nodes.push(((index, pool), found));
    }
    // In the order of the stories.
    nodes.sort_by_key(|(place, _)| *place);
    nodes.into_iter().map(|(_, node)| node).collect()
}

async fn calls(world: &World) -> Vec<Value> {
    let endpoint = world.programs.env.iter().find(|(key, _)| key == "AWS_ENDPOINT_URL").unwrap();
    let output = tokio::process::Command::new("curl")
        .args(["-sf", "--max-time", "20", &format!("{}/_control/calls", endpoint.1)])
        .output();
    serde_json::from_slice(&output.await.unwrap().stdout).unwrap()
}

/// Looks again until `condition` holds for each; says of whom it does not, and how they stand.
async fn until<'a>(
    what: &str,
    nodes: impl Iterator<Item = (&'a Story, &'a Node)>,
    condition: impl Fn(&Node) -> bool,
) {
    let start = std::time::Instant::now();
    let mut missing: Vec<_> = nodes.collect();
    loop {
        missing.retain(|(_, node)| !condition(node));
        if missing.is_empty() {
            return;
        }
        if start.elapsed() > PATIENCE {
            let stand: Vec<_> = missing.iter().map(|(story, node)| node.stand(story)).collect();
            panic!("waited in vain until each {what}:\n{}", stand.join("\n"));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
