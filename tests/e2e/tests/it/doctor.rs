//! `control doctor`: quotas, reservations, images and permissions are asked for before anything is
//! touched; what cannot be known for sure is said and refuses nothing.

use contract::ExitCode;
use e2e::torture::calls::of_control;
use e2e::torture::lives::Stage;
use serde_json::json;

use crate::networks::{SYSTEM, aws, control, fleet, reservation};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_account_does_not_allow_is_said_before_anything_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await.unwrap();
    let (aws, file) = (aws(&stage), dir.path().join("fleet.yaml"));
    let id = reservation(&aws).await;
    let write = |more: &str| {
        let pools = format!(
            "{SYSTEM}  - {{name: h100, class: gpu, instanceType: p5.48xlarge, size: {{min: 0, \
             desired: 2}}{more}}}\n"
        );
        std::fs::write(&file, fleet("prod", &pools)).unwrap();
    };
    write("");
    let good = control(&stage, "doctor", &file, &[]).await.expect(ExitCode::Success).unwrap();
    assert!(good.stderr.contains("Nothing stands in the way of prod"), "{}", good.stderr);

    let quotas = json!({"Running On-Demand P instances": 192, "VPCs per Region": 1});
    stage.account.tell("quotas", &quotas).await.unwrap();
    let said = control(&stage, "doctor", &file, &[]).await;
    let said = said.expect(ExitCode::PreflightBlocked).unwrap().stderr;
    assert!(said.contains("`Running On-Demand P instances` allows 192 vCPUs"), "{said}");
    assert!(said.contains("--quota-code L-417A185B --desired-value 384"), "{said}");
    assert!(said.contains("`VPCs per Region` allows 1 VPCs; others use 1"), "{said}");
    // `up` asks the same first.
    let begin = stage.account.calls_so_far().await.unwrap();
    control(&stage, "up", &file, &["--yes"]).await.expect(ExitCode::PreflightBlocked).unwrap();
    let calls = of_control(&stage.account.calls_since(begin).await.unwrap());
    assert!(calls.iter().all(|call| call.is_read()), "{calls:?}");
    let plenty = json!({"Running On-Demand P instances": 9999, "VPCs per Region": 5});
    stage.account.tell("quotas", &plenty).await.unwrap();
    // In a network without a way to Service Quotas nobody says what is allowed.
    let cut = json!([{"service": "servicequotas", "op": "*", "action": "reset"}]);
    stage.account.lay(&cut).await.unwrap();
    let doubt = control(&stage, "doctor", &file, &[]).await.expect(ExitCode::Success).unwrap();
    assert!(doubt.stderr.contains("quotas suffice is not known"), "{}", doubt.stderr);
    stage.account.lift().await.unwrap();

    write(&format!(", capacity: reserved, reservation: {id}, image: ami-00000000"));
    stage.account.tell("reservations", &json!({&id: {"state": "expired"}})).await.unwrap();
    let said = control(&stage, "doctor", &file, &[]).await;
    let said = said.expect(ExitCode::PreflightBlocked).unwrap().stderr;
    assert!(said.contains("is expired: nothing can be launched into it"), "{said}");
    assert!(said.contains("holds c6i.large, and the pool asks for p5.48xlarge"), "{said}");
    assert!(said.contains("there is no image `ami-00000000`"), "{said}");
    stage.world.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_credentials_seem_to_lack_is_a_doubt_and_refuses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut stage = Stage::open(dir.path()).await.unwrap();
    let (aws, file) = (aws(&stage), dir.path().join("fleet.yaml"));
    std::fs::write(&file, fleet("prod", SYSTEM)).unwrap();
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}"#;
    let rights = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"ec2:CreateNatGateway","Resource":"*"}]}"#;
    let made = [("RoleName", "builder"), ("AssumeRolePolicyDocument", trust)];
    let made = aws.query("iam", "CreateRole", &made).await.unwrap();
    let put = [("RoleName", "builder"), ("PolicyName", "p"), ("PolicyDocument", rights)];
    aws.query("iam", "PutRolePolicy", &put).await.unwrap();
    let arn = crate::networks::texts(&made, "Arn").remove(0);
    let (session, _) = aws.assume_role(&arn, "me").await.unwrap();
    for (key, value) in &mut stage.world.programs.env {
        match key.as_str() {
            "AWS_ACCESS_KEY_ID" => value.clone_from(&session.access_key_id),
            "AWS_SECRET_ACCESS_KEY" => value.clone_from(&session.secret_access_key),
            _ => {}
        }
    }
    let token = session.session_token.unwrap();
    stage.world.programs.env.push(("AWS_SESSION_TOKEN".into(), token));
    let said = control(&stage, "doctor", &file, &[]).await.expect(ExitCode::Success).unwrap();
    let doubt = "role/builder` seems to lack ec2:CreateNatGateway;";
    assert!(said.stderr.contains(doubt), "{}", said.stderr);
    stage.world.down().await.unwrap();
}
