//! The layer stack against an account that moves by itself, and one that is in a bad way.

use contract::ExitCode;
use e2e::Finished;
use e2e::torture::calls::{CALLER, of_control};
use e2e::torture::lives::{Stage, Way};
use lab::aws::{Credentials, Emulator};
use serde_json::json;

async fn stage(dir: &tempfile::TempDir) -> Stage {
    Stage::open(dir.path()).await.unwrap()
}

fn variable(stage: &Stage, name: &str) -> String {
    let found = stage.world.programs.env.iter().find(|(key, _)| key == name);
    found.unwrap().1.clone()
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
    let operator = Credentials {
        access_key_id: variable(stage, "AWS_ACCESS_KEY_ID"),
        secret_access_key: variable(stage, "AWS_SECRET_ACCESS_KEY"),
        session_token: None,
    };
    let region = variable(stage, "AWS_REGION");
    let aws = Emulator::new(variable(stage, "AWS_ENDPOINT_URL"), region, operator);
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

    // A tag of the fleet file changes: the network is tagged anew, and nothing of it is replaced.
    let text = std::fs::read_to_string(&stage.fleet).unwrap();
    std::fs::write(&stage.fleet, text.replace("research", "training")).unwrap();
    control(&stage, "plan", &["--out", saved]).await.expect(ExitCode::Success).unwrap();
    let plan: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(saved).unwrap()).unwrap();
    let network = plan["plan"]["layers"][0]["steps"].as_array().unwrap();
    assert!(network.len() >= 10 && network.iter().all(|s| s["resource"] == "tags"), "{network:#?}");
    let through = ["--plan", saved, "--through", "network"];
    control(&stage, "up", &through).await.expect(ExitCode::Success).unwrap();
    let again = control(&stage, "plan", &["-o", "json"]).await.json().unwrap();
    assert_eq!(again["layers"][0]["steps"], json!([]), "{again:#}");
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
