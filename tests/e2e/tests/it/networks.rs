//! Networks, roles and capacity that are there already: used, judged, and left as they were. And a
//! network that nothing leads out of.

use contract::ExitCode;
use e2e::Finished;
use e2e::torture::calls::of_control;
use e2e::torture::lives::Stage;
use lab::aws::{Credentials, Emulator};

fn aws(stage: &Stage) -> Emulator {
    let variable = |name: &str| {
        let found = stage.world.programs.env.iter().find(|(key, _)| key == name);
        found.unwrap().1.clone()
    };
    let operator = Credentials {
        access_key_id: variable("AWS_ACCESS_KEY_ID"),
        secret_access_key: variable("AWS_SECRET_ACCESS_KEY"),
        session_token: None,
    };
    Emulator::new(variable("AWS_ENDPOINT_URL"), variable("AWS_REGION"), operator)
}

/// The texts of an XML element, in order.
fn texts(xml: &str, element: &str) -> Vec<String> {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let parts = xml.split(&open).skip(1).filter_map(|part| part.split_once(&close));
    parts.map(|(text, _)| text.to_owned()).collect()
}

async fn control(stage: &Stage, verb: &str, file: &std::path::Path, more: &[&str]) -> Finished {
    let tarball = stage.tarball.to_str().unwrap();
    let mut args = vec![verb, "-f", file.to_str().unwrap()];
    match verb {
        "up" => args.extend(["--agent-tarball", tarball]),
        "down" => args.push("--yes"),
        _ => {}
    }
    args.extend(more);
    stage.world.control(&args).await.unwrap()
}

fn fleet(name: &str, more: &str) -> String {
    format!(
        "apiVersion: rollcall.dev/v1alpha1\nkind: Fleet\nname: {name}\nregion: us-east-1\n\
         kubernetes: \"1.34\"\nagent: {{publish: true}}\n{more}"
    )
}

const SYSTEM: &str = "pools:\n  - {name: system, class: system, instanceType: m6i.large, size: \
                      {min: 1, desired: 1, max: 1}}\n";

/// The ids of a fleet's subnets of a kind.
async fn subnets(aws: &Emulator, fleet: &str, kind: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for zone in ["us-east-1a", "us-east-1b"] {
        let name = format!("{fleet}-{kind}-{zone}");
        let filter = [("Filter.1.Name", "tag:Name"), ("Filter.1.Value.1", name.as_str())];
        let found = aws.query("ec2", "DescribeSubnets", &filter).await.unwrap();
        ids.extend(texts(&found, "subnetId"));
    }
    assert_eq!(ids.len(), 2, "{ids:?}");
    ids
}

/// A role that somebody else made for nodes.
async fn role(aws: &Emulator) -> String {
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
    let rights =
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
    let made = [("RoleName", "their-nodes"), ("AssumeRolePolicyDocument", trust)];
    let made = aws.query("iam", "CreateRole", &made).await.unwrap();
    let put = [("RoleName", "their-nodes"), ("PolicyName", "all"), ("PolicyDocument", rights)];
    aws.query("iam", "PutRolePolicy", &put).await.unwrap();
    texts(&made, "Arn").remove(0)
}

/// A reservation of one instance in the zone of the first subnet.
async fn reservation(aws: &Emulator) -> String {
    let asked = [
        ("InstanceType", "c6i.large"),
        ("InstancePlatform", "Linux/UNIX"),
        ("AvailabilityZone", "us-east-1a"),
        ("InstanceCount", "1"),
    ];
    let made = aws.query("ec2", "CreateCapacityReservation", &asked).await.unwrap();
    texts(&made, "capacityReservationId").remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_in_what_is_there_already_leaves_it_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await.unwrap();
    let aws = aws(&stage);
    // Somebody's network: another fleet's, of which nothing but the network is built.
    let theirs = dir.path().join("theirs.yaml");
    std::fs::write(&theirs, fleet("theirs", SYSTEM)).unwrap();
    let through = ["--yes", "--through", "network"];
    control(&stage, "up", &theirs, &through).await.expect(ExitCode::Success).unwrap();
    let (role, reservation) = (role(&aws).await, reservation(&aws).await);
    let private = subnets(&aws, "theirs", "private").await;
    let public = subnets(&aws, "theirs", "public").await;
    let vpcs = [("Filter.1.Name", "tag:Name"), ("Filter.1.Value.1", "theirs")];
    let vpc = texts(&aws.query("ec2", "DescribeVpcs", &vpcs).await.unwrap(), "vpcId").remove(0);

    let ours = dir.path().join("ours.yaml");
    let network = format!(
        "network:\n  existing:\n    vpc: {vpc}\n    privateSubnets: [{}]\n    publicSubnets: [{}]\n\
         roles: {{gpuNode: '{role}'}}\n",
        private.join(", "),
        public.join(", ")
    );
    let pools = format!(
        "  - {{name: near, class: apps, instanceType: c6in.32xlarge, size: {{min: 0, desired: 1}}, \
         efa: true, placement: cluster, zones: [us-east-1b]}}\n  - {{name: held, class: infra, \
         instanceType: c6i.large, size: {{min: 0, desired: 1}}, capacity: reserved, reservation: \
         {reservation}}}\n"
    );
    let good = fleet("prod", &format!("{network}{SYSTEM}{pools}"));
    std::fs::write(&ours, &good).unwrap();
    let before = stage.account.holds().await.unwrap();
    let begin = stage.account.calls_so_far().await.unwrap();
    control(&stage, "up", &ours, &["--yes"]).await.expect(ExitCode::Success).unwrap();

    // Nothing of theirs is made anew, and all of ours carries our tag.
    let held = stage.account.holds().await.unwrap();
    let new: Vec<&String> = held.iter().filter(|line| !before.contains(line)).collect();
    let count = |kind: &str| new.iter().filter(|line| line.starts_with(kind)).count();
    for (kind, wanted) in [
        ("vpc ", 0),
        ("subnet ", 0),
        ("nat-gateway ", 0),
        ("route-table ", 0),
        ("security-group prod-efa", 1),
        ("placement-group prod-near", 1),
        ("role prod-gpu-node", 0),
        ("instance prod-near", 1),
        ("instance prod-held", 1),
    ] {
        assert_eq!(count(kind), wanted, "{kind}: {new:#?}");
    }
    let within =
        [("Filter.1.Name", "capacity-reservation-id"), ("Filter.1.Value.1", reservation.as_str())];
    let within = aws.query("ec2", "DescribeInstances", &within).await.unwrap();
    assert_eq!(texts(&within, "instanceId").len(), 1, "{within}");

    // A second `up` changes nothing.
    let second = stage.account.calls_so_far().await.unwrap();
    let again = control(&stage, "up", &ours, &["--yes"]).await.expect(ExitCode::Success).unwrap();
    assert!(again.stderr.contains("Unchanged: prod is as asked"), "{}", again.stderr);
    let calls = of_control(&stage.account.calls_since(second).await.unwrap());
    let changing: Vec<_> = calls.iter().filter(|call| !call.is_read()).collect();
    assert!(changing.is_empty(), "{changing:?}");

    // A subnet of nobody: all of it is said, and nothing touched.
    let bad = dir.path().join("bad.yaml");
    std::fs::write(&bad, good.replace(&private[1], "subnet-00000000")).unwrap();
    let said = control(&stage, "doctor", &bad, &[]).await;
    let said = said.expect(ExitCode::PreflightBlocked).unwrap().stderr;
    assert!(said.contains("there is no subnet `subnet-00000000`"), "{said}");
    assert!(said.contains("the fleet has no subnet in `us-east-1b`"), "{said}");

    control(&stage, "down", &ours, &[]).await.expect(ExitCode::Success).unwrap();
    stage.account.comes_to(&before).await.unwrap();
    // Of what is theirs, only tags of subnets were written, and they are gone.
    let calls = of_control(&stage.account.calls_since(begin).await.unwrap());
    let ids = [&private[..], &public[..]].concat();
    let filter: Vec<(String, String)> = (1..)
        .zip(&ids)
        .map(|(at, id)| (format!("Filter.1.Value.{at}"), id.clone()))
        .chain([("Filter.1.Name".to_owned(), "resource-id".to_owned())])
        .collect();
    let filter: Vec<(&str, &str)> = filter.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let tags = aws.query("ec2", "DescribeTags", &filter).await.unwrap();
    assert!(!tags.contains("kubernetes.io/cluster/prod"), "{tags}");
    for op in ["CreateVpc", "CreateSubnet", "CreateRoute", "DeleteSubnet", "DeleteVpc"] {
        assert!(calls.iter().all(|call| call.operation != op), "{op}");
    }
    control(&stage, "down", &theirs, &[]).await.expect(ExitCode::Success).unwrap();
    stage.world.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_network_and_one_with_a_nat_gateway_in_each_zone_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await.unwrap();
    let empty = stage.account.holds().await.unwrap();
    let file = dir.path().join("net.yaml");
    let image = "devicePluginImage: 1.dkr.ecr.us-east-1.amazonaws.com/plugin:1\n";
    let all: &[(&str, usize)] = &[
        ("endpoint ", 11),
        ("nat-gateway ", 0),
        ("internet-gateway prod", 0),
        ("security-group prod-endpoints", 1),
        ("subnet prod-", 2),
    ];
    let per_zone: &[(&str, usize)] =
        &[("endpoint ", 1), ("nat-gateway ", 2), ("address prod-", 2), ("subnet prod-", 4)];
    for (network, wanted) in [
        ("network: {nat: none, zoneIds: [use1-az2, use1-az4]}\n", all),
        ("network: {nat: per-zone, endpoints: s3}\n", per_zone),
    ] {
        std::fs::write(&file, fleet("prod", &format!("{network}{image}{SYSTEM}"))).unwrap();
        let through = ["--yes", "--through", "network"];
        control(&stage, "up", &file, &through).await.expect(ExitCode::Success).unwrap();
        let held = stage.account.holds().await.unwrap();
        for (kind, wanted) in wanted {
            let found = held.iter().filter(|line| line.starts_with(kind)).count();
            assert_eq!(found, *wanted, "{kind} of {network}: {held:#?}");
        }
        let second = stage.account.calls_so_far().await.unwrap();
        control(&stage, "up", &file, &through).await.expect(ExitCode::Success).unwrap();
        let calls = of_control(&stage.account.calls_since(second).await.unwrap());
        let changing: Vec<_> = calls.iter().filter(|call| !call.is_read()).collect();
        assert!(changing.is_empty(), "{network}: {changing:?}");
        control(&stage, "down", &file, &[]).await.expect(ExitCode::Success).unwrap();
        stage.account.comes_to(&empty).await.unwrap();
    }
    stage.world.down().await.unwrap();
}
