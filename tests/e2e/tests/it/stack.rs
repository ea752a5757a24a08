//! The layer stack against an account that moves by itself, and one that is in a bad way.

use contract::ExitCode;
use e2e::Finished;
use e2e::torture::calls::{CALLER, of_control};
use e2e::torture::lives::{Stage, Way};
use serde_json::{Value, json};

async fn stage(dir: &tempfile::TempDir) -> Stage {
    Stage::open(dir.path()).await.unwrap()
}

/// `control VERB -f FLEET … --agent-tarball …`.
async fn control(stage: &Stage, verb: &str, more: &[&str]) -> Finished {
    let (fleet, tarball) = (stage.fleet.to_str().unwrap(), stage.tarball.to_str().unwrap());
    let mut args = vec![verb, "-f", fleet, "--agent-tarball", tarball];
    args.extend(more);
    stage.world.control(&args).await.unwrap()
}

/// Takes a route table from those that use it and deletes it, as somebody with a console does.
async fn delete_route_table(stage: &Stage, name: &str) {
    let aws = stage.operator().unwrap();
    let call = async |action: &str, parameters: &[(&str, &str)]| {
        aws.query("ec2", action, parameters).await.unwrap()
    };
    let filter = [("Filter.1.Name", "tag:Name"), ("Filter.1.Value.1", name)];
    let found = call("DescribeRouteTables", &filter).await;
    let ids = |prefix: &str| -> Vec<String> {
        let words = found.split(['<', '>']).filter(|word| word.starts_with(prefix));
        let mut ids: Vec<String> = words.map(str::to_owned).collect();
        ids.sort();
        ids.dedup();
        ids
    };
    for association in ids("rtbassoc-") {
        call("DisassociateRouteTable", &[("AssociationId", &association)]).await;
    }
    for table in ids("rtb-") {
        call("DeleteRouteTable", &[("RouteTableId", &table)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_deletes_is_named_and_mended() {
    let dir = tempfile::tempdir().unwrap();
    let stage = stage(&dir).await;
    stage.run(Way::Up).await.unwrap().expect(ExitCode::Success).unwrap();
    let saved = dir.path().join("plan.json");
    let saved = saved.to_str().unwrap();
    control(&stage, "plan", &["--out", saved]).await.expect(ExitCode::Success).unwrap();
    let none = control(&stage, "drift", &["--detailed-exitcode"]).await;
    assert!(none.expect(ExitCode::Success).unwrap().stdout.contains("No drift"));
    let before = stage.account.holds().await.unwrap();

    delete_route_table(&stage, "prod-private").await;
    let drift = control(&stage, "drift", &["--detailed-exitcode"]).await;
    let drift = drift.expect(ExitCode::ChangesPending).unwrap();
    assert!(drift.stdout.contains("route table prod-private  is gone"), "{}", drift.stdout);
    let refused = control(&stage, "up", &["--plan", saved]).await;
    let refused = refused.expect(ExitCode::PreflightBlocked).unwrap();
    assert!(refused.stderr.contains("new: add route table prod-private"), "{}", refused.stderr);
    stage.run(Way::Up).await.unwrap().expect(ExitCode::Success).unwrap();
    stage.account.comes_to(&before).await.unwrap();

    tags_change_in_place(&stage).await;
    stage.account.comes_to(&before).await.unwrap();
    stage.run(Way::Down).await.unwrap().expect(ExitCode::Success).unwrap();
    stage.world.down().await.unwrap();
}

/// A tag of the fleet file changes: everything is tagged anew where it is, and nothing is replaced.
async fn tags_change_in_place(stage: &Stage) {
    let nodes = async || -> Vec<(String, String)> {
        let all = stage.account.instances().await.unwrap();
        let living = all.iter().filter(|instance| instance["state"] == "running");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        living.map(|one| (text(&one["instanceId"]), text(&one["tags"]["cost-center"]))).collect()
    };
    let before = nodes().await;
    assert_eq!(before.len(), 1);
    rewrite(stage, "research", "training");
    let plan = control(stage, "plan", &["-o", "json"]).await.json().unwrap();
    for layer in plan["layers"].as_array().unwrap() {
        let steps = layer["steps"].as_array().unwrap();
        // The bucket's are written whole.
        let tags = steps.iter().filter(|s| s["resource"] == "tags" || s["resource"] == "bucket");
        assert!(!steps.is_empty() && tags.count() == steps.len(), "{layer:#}");
    }
    stage.run(Way::Up).await.unwrap().expect(ExitCode::Success).unwrap();
    assert_eq!(nodes().await, [(before[0].0.clone(), "training".to_owned())]);
    let again = control(stage, "plan", &["--detailed-exitcode"]).await;
    again.expect(ExitCode::Success).unwrap();
    // A node that comes later has them too.
    let since = stage.account.calls_so_far().await.unwrap();
    rewrite(stage, "min: 1, desired: 1, max: 1", "min: 1, desired: 2, max: 2");
    stage.run(Way::Up).await.unwrap().expect(ExitCode::Success).unwrap();
    let (now, calls) = (nodes().await, stage.account.calls_since(since).await.unwrap());
    assert!(now.len() == 2 && now.iter().all(|(_, tag)| tag == "training"), "{now:?}");
    let rolled = of_control(&calls).into_iter().find(|call| call.operation.ends_with("Version"));
    assert_eq!(rolled, None);
    rewrite(stage, "min: 1, desired: 2, max: 2", "min: 1, desired: 1, max: 1");
    stage.run(Way::Up).await.unwrap().expect(ExitCode::Success).unwrap();
}

fn rewrite(stage: &Stage, from: &str, to: &str) {
    let text = std::fs::read_to_string(&stage.fleet).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&stage.fleet, text.replace(from, to)).unwrap();
}

/// EKS's image for another version of Kubernetes: the same in every lab.
const ANOTHER_IMAGE: &str = "ami-0fe1b021a36883caa";

#[tokio::test(flavor = "multi_thread")]
async fn another_image_is_rolled_out_in_batches_with_the_gate_between() {
    let dir = tempfile::tempdir().unwrap();
    let stage = stage(&dir).await;
    rewrite(&stage, "min: 1, desired: 1, max: 1", "min: 1, desired: 2, max: 2");
    stage.run(Way::Up).await.unwrap().expect(ExitCode::Success).unwrap();
    rewrite(&stage, "name: system,", &format!("name: system, image: {ANOTHER_IMAGE},"));

    // Old and new ones that live, at each look, as they follow each other.
    let mut seen: Vec<(usize, usize)> = Vec::new();
    let since = stage.account.calls_so_far().await.unwrap();
    let mut up = std::pin::pin!(stage.run(Way::Up));
    let ended = loop {
        let looks = std::time::Duration::from_millis(100);
        if let Ok(ended) = tokio::time::timeout(looks, &mut up).await {
            break ended.unwrap();
        }
        let all = stage.account.instances().await.unwrap();
        let living =
            all.iter().filter(|one| one["state"] == "running" || one["state"] == "pending");
        let (new, old): (Vec<_>, Vec<_>) = living.partition(|one| one["imageId"] == ANOTHER_IMAGE);
        if seen.last() != Some(&(old.len(), new.len())) {
            seen.push((old.len(), new.len()));
        }
    };
    let said = ended.expect(ExitCode::Success).unwrap();
    assert!(said.stderr.contains("2 of 2 ready"), "{}", said.stderr);
    assert!(seen.iter().all(|(old, new)| (2..=3).contains(&(old + new))), "{seen:?}");
    assert!(seen.contains(&(2, 1)) && seen.contains(&(1, 2)), "one at a time: {seen:?}");
    let calls = of_control(&stage.account.calls_since(since).await.unwrap());
    let rolls = calls.iter().filter(|call| call.operation == "UpdateNodegroupVersion").count();
    assert_eq!(rolls, 1);
    let all = stage.account.instances().await.unwrap();
    let mut living = all.iter().filter(|one| one["state"] == "running");
    assert!(living.all(|one| one["imageId"] == ANOTHER_IMAGE));
    let again = control(&stage, "plan", &["--detailed-exitcode"]).await;
    again.expect(ExitCode::Success).unwrap();
    stage.run(Way::Down).await.unwrap().expect(ExitCode::Success).unwrap();
    stage.world.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_account_that_is_one_behind_costs_a_few_more_calls() {
    let dir = tempfile::tempdir().unwrap();
    let stage = stage(&dir).await;
    let life = async || {
        let since = stage.account.calls_so_far().await.unwrap();
        stage.run(Way::Up).await.unwrap().expect(ExitCode::Success).unwrap();
        stage.run(Way::Down).await.unwrap().expect(ExitCode::Success).unwrap();
        of_control(&stage.account.calls_since(since).await.unwrap()).len()
    };
    let empty = stage.account.holds().await.unwrap();
    let undisturbed = life().await;
    let rules = ["ec2", "eks", "iam", "ssm", "s3"].map(|service| {
        let of = |action: &str, more: serde_json::Value| {
            let mut rule = json!({"service": service, "action": action, "caller": CALLER});
            rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            rule
        };
        [
            of("throttle", json!({"prob": 0.3})),
            of("error", json!({"prob": 0.05, "status": 500})),
            of("stale", json!({"reads": true})),
        ]
    });
    stage.account.lay(&json!(rules.concat())).await.unwrap();
    let disturbed = life().await;
    stage.account.lift().await.unwrap();
    stage.account.comes_to(&empty).await.unwrap();
    #[expect(clippy::cast_precision_loss, reason = "hundreds of calls")]
    let ratio = disturbed as f64 / undisturbed as f64;
    println!("{disturbed} calls instead of {undisturbed}: {ratio:.2}");
    assert!(ratio <= 2.5, "{disturbed} calls instead of {undisturbed}");
    stage.world.down().await.unwrap();
}
