//! Images of one's own: resolved, listed, promoted into a channel, booted by the pools that take it, rolled
//! when another is promoted, refused where they do not fit, pruned. Their making is Packer's part.

use contract::ExitCode;
use contract::names::{
    TAG_IMAGE, TAG_IMAGE_AGENT, TAG_IMAGE_BUILD, TAG_IMAGE_DRIVER, TAG_IMAGE_KUBERNETES,
    TAG_IMAGE_VERIFIED,
};
use e2e::Finished;
use e2e::torture::calls::of_control;
use e2e::torture::lives::{Stage, Way};
use lab::aws::Emulator;
use serde_json::Value;

use crate::networks::{aws, control, texts};

/// What this build's agent and `control` are.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A baked image, as far as EC2 tells: a copy of EKS's own with the tags that a build ends with.
async fn image(aws: &Emulator, name: &str, kubernetes: &str, verified: bool) -> String {
    let of_eks = format!("amazon-eks-node-al2023-x86_64-nvidia-{kubernetes}-*");
    let filter = [("Filter.1.Name", "name"), ("Filter.1.Value.1", of_eks.as_str())];
    let found = aws.query("ec2", "DescribeImages", &filter).await.unwrap();
    let source = texts(&found, "imageId").remove(0);
    let copy = [("SourceImageId", source.as_str()), ("SourceRegion", "us-east-1"), ("Name", name)];
    let made = aws.query("ec2", "CopyImage", &copy).await.unwrap();
    let id = texts(&made, "imageId").remove(0);
    let tags = [
        (TAG_IMAGE, format!("al2023-nvidia-{kubernetes}-x86_64")),
        (TAG_IMAGE_KUBERNETES, kubernetes.to_owned()),
        (TAG_IMAGE_DRIVER, "580".to_owned()),
        (TAG_IMAGE_AGENT, VERSION.to_owned()),
        (TAG_IMAGE_BUILD, name.to_owned()),
        (TAG_IMAGE_VERIFIED, "2026-11-20T10:12:00Z".to_owned()),
    ];
    let mut call = vec![("ResourceId.1".to_owned(), id.clone())];
    for (index, (key, value)) in tags.iter().enumerate() {
        if verified || *key != TAG_IMAGE_VERIFIED {
            call.push((format!("Tag.{}.Key", index + 1), (*key).to_owned()));
            call.push((format!("Tag.{}.Value", index + 1), value.clone()));
        }
    }
    let call: Vec<(&str, &str)> = call.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    aws.query("ec2", "CreateTags", &call).await.unwrap();
    id
}

async fn ami(stage: &Stage, words: &[&str]) -> Finished {
    stage.world.control(&[&["ami"], words].concat()).await.unwrap()
}

/// A pool that asks for a driver, and boots nothing.
const GPU: &str =
    "  - {name: gpu, class: gpu, instanceType: g5.12xlarge, size: {min: 0, desired: 0, max: 1}}\n";

/// Makes the stage's fleet one whose pools take what is promoted.
fn fleet(stage: &Stage, nodes: usize, more: &str) {
    let text = format!(
        "apiVersion: rollcall.dev/v1alpha1\nkind: Fleet\nname: prod\nregion: us-east-1\n\
         kubernetes: \"1.34\"\nagent: {{publish: true}}\nimage: {{channel: stable}}\n\
         network: {{cidr: 10.7.0.0/16, zones: 2, nat: one}}\npools:\n  \
         - {{name: system, class: system, instanceType: m6i.large, \
         size: {{min: 1, desired: {nodes}, max: 2}}}}\n{more}"
    );
    std::fs::write(&stage.fleet, text).unwrap();
}

async fn run(stage: &Stage, verb: &str, more: &[&str]) -> Finished {
    let tarball = ["--agent-tarball", stage.tarball.to_str().unwrap()];
    match verb {
        "plan" => control(stage, verb, &stage.fleet, &[&tarball[..], more].concat()).await,
        _ => control(stage, verb, &stage.fleet, more).await,
    }
}

fn json(finished: Finished) -> Value {
    finished.expect(ExitCode::Success).unwrap().json().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_boots_what_is_promoted_and_is_rolled_when_another_is() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await.unwrap();
    let aws = aws(&stage);
    let first = image(&aws, "rollcall-a-20261120T100000Z", "1.34", true).await;
    let second = image(&aws, "rollcall-b-20261121T100000Z", "1.34", true).await;
    fleet(&stage, 2, "");

    let none = run(&stage, "plan", &[]).await.expect(ExitCode::PreflightBlocked).unwrap();
    assert!(none.stderr.contains("no image is in the channel `stable`"), "{}", none.stderr);
    assert!(none.stderr.contains("control ami promote stable IMAGE"), "{}", none.stderr);
    ami(&stage, &["promote", "stable", &first]).await.expect(ExitCode::Success).unwrap();
    stage.run(Way::Up).await.unwrap().expect(ExitCode::Success).unwrap();
    let booted = async |image: &str| {
        let all = stage.account.instances().await.unwrap();
        let living = all.iter().filter(|one| one["state"] == "running");
        living.filter(|one| one["imageId"] == image).count()
    };
    assert_eq!(booted(&first).await, 2);

    // Promoting changes nothing by itself; the plan says what the next `up` does.
    ami(&stage, &["promote", "stable", &second]).await.expect(ExitCode::Success).unwrap();
    assert_eq!(booted(&first).await, 2);
    let plan = run(&stage, "plan", &["-o", "json", "--detailed-exitcode"]).await;
    let plan = plan.expect(ExitCode::ChangesPending).unwrap().json().unwrap();
    let said = plan.to_string();
    assert!(said.contains(&format!("image {second} instead of {first}")), "{plan:#}");
    assert!(said.contains(&format!("rolled in batches onto image {second}")), "{plan:#}");

    let mut seen: Vec<(usize, usize)> = Vec::new();
    let since = stage.account.calls_so_far().await.unwrap();
    let mut up = std::pin::pin!(stage.run(Way::Up));
    let ended = loop {
        let look = std::time::Duration::from_millis(100);
        if let Ok(ended) = tokio::time::timeout(look, &mut up).await {
            break ended.unwrap();
        }
        let all = stage.account.instances().await.unwrap();
        let alive = |one: &&Value| one["state"] == "running" || one["state"] == "pending";
        let of =
            |image: &str| all.iter().filter(alive).filter(|one| one["imageId"] == *image).count();
        let now = (of(&first), of(&second));
        if seen.last() != Some(&now) {
            seen.push(now);
        }
    };
    ended.expect(ExitCode::Success).unwrap();
    // One new node at a time, and an old one goes only after it.
    assert!(seen.iter().all(|(old, new)| (2..=3).contains(&(old + new))), "{seen:?}");
    assert_eq!((booted(&first).await, booted(&second).await), (0, 2), "{seen:?}");
    let calls = of_control(&stage.account.calls_since(since).await.unwrap());
    let rolls = calls.iter().filter(|call| call.operation == "UpdateNodegroupVersion").count();
    assert_eq!(rolls, 1);

    let again = json(run(&stage, "up", &["--yes", "-o", "json"]).await);
    assert_eq!(again["changed"], 0, "{again:#}");
    // What is in use or is gone back to stays, however old.
    let pruned = json(ami(&stage, &["prune", "--keep", "0", "--dry-run", "-o", "json"]).await);
    assert_eq!(pruned["remove"], Value::Array(Vec::new()), "{pruned:#}");
    stage.run(Way::Down).await.unwrap().expect(ExitCode::Success).unwrap();
    stage.world.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_does_not_fit_is_refused_before_anything_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await.unwrap();
    let aws = aws(&stage);
    let newer = image(&aws, "rollcall-c-20261121T110000Z", "1.35", true).await;
    let older = image(&aws, "rollcall-d-20261121T120000Z", "1.33", true).await;
    ami(&stage, &["promote", "stable", &newer]).await.expect(ExitCode::Success).unwrap();
    fleet(&stage, 1, GPU);
    let since = stage.account.calls_so_far().await.unwrap();
    for (verb, more) in [("doctor", &[][..]), ("plan", &[]), ("up", &["--yes"])] {
        let said = run(&stage, verb, more).await.expect(ExitCode::PreflightBlocked).unwrap();
        let why =
            format!("`{newer}` has Kubernetes 1.35, and the cluster 1.34: kubelet is never newer");
        assert!(said.stderr.contains(&why), "{verb}: {}", said.stderr);
    }
    let calls = of_control(&stage.account.calls_since(since).await.unwrap());
    assert!(calls.iter().all(|call| call.is_read()), "{calls:?}");
    // kubelet may be older: so goes an upgrade, the control plane first.
    ami(&stage, &["promote", "stable", &older]).await.expect(ExitCode::Success).unwrap();
    run(&stage, "doctor", &[]).await.expect(ExitCode::Success).unwrap();

    let file = stage.fleet.to_str().unwrap();
    let checked = ami(&stage, &["check", &newer, "-f", file, "-o", "json"]).await;
    let checked = checked.expect(ExitCode::PreflightBlocked).unwrap().json().unwrap();
    assert_eq!(checked["pools"][1]["misfits"][0]["rule"], "Kubernetes", "{checked:#}");
    ami(&stage, &["check", &older, "-f", file]).await.expect(ExitCode::Success).unwrap();
    ami(&stage, &["check", &older, "-f", file, "--pool", "none"])
        .await
        .expect(ExitCode::Usage)
        .unwrap();
    stage.world.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_are_resolved_and_become_variables() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await.unwrap();
    let amis = stage.world.programs.root.join("amis");
    let (gpu, arm) =
        (amis.join("al2023-nvidia-1.34-x86_64.yaml"), amis.join("al2023-nvidia-1.34-arm64.yaml"));
    let (gpu, arm) = (gpu.to_str().unwrap(), arm.to_str().unwrap());
    let found = json(ami(&stage, &["resolve", gpu, arm, "-o", "json"]).await);
    let source = found[0]["image"].as_str().unwrap();
    assert!(source.starts_with("ami-") && found[1]["image"] != found[0]["image"], "{found:#}");
    let tarball = stage.tarball.to_str().unwrap();
    let vars = ["vars", gpu, "--source-ami", source, "--agent-tarball", tarball];
    let vars = json(ami(&stage, &vars).await);
    assert_eq!((&vars["source_ami"], &vars["driver_branch"]), (&source.into(), &"580".into()));
    assert_eq!(vars["agent_sha256"].as_str().unwrap().len(), 64);
    stage.world.down().await.unwrap();
}

/// The images that are in a channel, with their channels, sorted by id.
async fn channels(stage: &Stage) -> Vec<(String, Vec<String>)> {
    let all = json(ami(stage, &["list", "-o", "json"]).await);
    let of = |one: &Value| {
        let channels: Vec<String> = serde_json::from_value(one["channels"].clone()).unwrap();
        (one["id"].as_str().unwrap().to_owned(), channels)
    };
    let all = all.as_array().unwrap().iter().map(of);
    let mut found: Vec<_> = all.filter(|(_, channels)| !channels.is_empty()).collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_listed_promoted_gone_back_to_and_pruned() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await.unwrap();
    let aws = aws(&stage);
    let empty = ami(&stage, &["list"]).await.expect(ExitCode::Success).unwrap();
    assert_eq!(empty.stdout.trim(), "No image that was baked is in us-east-1.");
    let mut made = Vec::new();
    for index in 0..4 {
        let name = format!("rollcall-x-2026112{index}T100000Z");
        made.push(image(&aws, &name, "1.34", index != 3).await);
    }
    let promote = async |channel: &str, id: &str, more: &[&str], code: ExitCode| {
        let words = [&["promote", channel, id], more].concat();
        ami(&stage, &words).await.expect(code).unwrap().stderr
    };
    let refused = promote("stable", &made[3], &[], ExitCode::PreflightBlocked).await;
    assert!(refused.contains("was never verified"), "{refused}");
    promote("beta", &made[3], &["--force"], ExitCode::Success).await;
    promote("stable", "ami-00000000", &[], ExitCode::Usage).await;
    promote("stable", &made[0], &[], ExitCode::Success).await;
    promote("stable", &made[1], &[], ExitCode::Success).await;
    let place = |id: &String, channel: &str| (id.clone(), vec![channel.to_owned()]);
    let sorted = |mut places: Vec<(String, Vec<String>)>| {
        places.sort();
        places
    };
    let expected = sorted(vec![place(&made[3], "beta"), place(&made[1], "stable")]);
    assert_eq!(channels(&stage).await, expected);
    // Going back.
    promote("stable", &made[0], &[], ExitCode::Success).await;
    let expected = sorted(vec![place(&made[3], "beta"), place(&made[0], "stable")]);
    assert_eq!(channels(&stage).await, expected);

    let asked = ami(&stage, &["prune"]).await.expect(ExitCode::Usage).unwrap();
    assert!(asked.stderr.contains("--yes"), "{}", asked.stderr);
    let snapshots = async || {
        let own = [("Owner.1", "self")];
        texts(&aws.query("ec2", "DescribeSnapshots", &own).await.unwrap(), "snapshotId").len()
    };
    let before = snapshots().await;
    let pruned = json(ami(&stage, &["prune", "--keep", "0", "--yes", "-o", "json"]).await);
    let gone = pruned["remove"].as_array().unwrap().iter().map(|one| one["id"].clone());
    let gone: Vec<Value> = gone.collect();
    assert_eq!(gone, [made[2].as_str()], "the others are promoted, or gone back to: {pruned:#}");
    assert_eq!(snapshots().await, before - 1);
    let listed = ami(&stage, &["list"]).await.expect(ExitCode::Success).unwrap();
    assert!(!listed.stdout.contains(&made[2]), "{}", listed.stdout);
    stage.world.down().await.unwrap();
}
