//! Networks, roles and capacity that are there already: used, judged, and left as they were. And a
//! network that nothing leads out of.

use std::path::Path;

use contract::ExitCode;
use e2e::Finished;
use e2e::torture::calls::of_control;
use e2e::torture::lives::Stage;
use lab::aws::{Credentials, Emulator};

pub(crate) fn aws(stage: &Stage) -> Emulator {
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
pub(crate) fn texts(xml: &str, element: &str) -> Vec<String> {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let parts = xml.split(&open).skip(1).filter_map(|part| part.split_once(&close));
    parts.map(|(text, _)| text.to_owned()).collect()
}

pub(crate) async fn control(stage: &Stage, verb: &str, file: &Path, more: &[&str]) -> Finished {
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

pub(crate) fn fleet(name: &str, more: &str) -> String {
    format!(
        "apiVersion: rollcall.dev/v1alpha1\nkind: Fleet\nname: {name}\nregion: us-east-1\n\
         kubernetes: \"1.34\"\nagent: {{publish: true}}\n{more}"
    )
}

pub(crate) const SYSTEM: &str = "pools:\n  - {name: system, class: system, instanceType: m6i.large, size: \
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
pub(crate) async fn reservation(aws: &Emulator) -> String {
    let asked = [
        ("InstanceType", "c6i.large"),
        ("InstancePlatform", "Linux/UNIX"),
        ("AvailabilityZone", "us-east-1a"),
        ("InstanceCount", "1"),
    ];
    let made = aws.query("ec2", "CreateCapacityReservation", &asked).await.unwrap();
    texts(&made, "capacityReservationId").remove(0)
}

/// What somebody else has made.
struct Theirs {
    vpc: String,
    private: Vec<String>,
    public: Vec<String>,
    role: String,
    reservation: String,
}

/// Somebody's network: another fleet's, of which nothing but the network is built.
async fn theirs(stage: &Stage, aws: &Emulator, file: &Path) -> Theirs {
    std::fs::write(file, fleet("theirs", SYSTEM)).unwrap();
    let through = ["--yes", "--through", "network"];
    control(stage, "up", file, &through).await.expect(ExitCode::Success).unwrap();
    let vpcs = [("Filter.1.Name", "tag:Name"), ("Filter.1.Value.1", "theirs")];
    let vpcs = aws.query("ec2", "DescribeVpcs", &vpcs).await.unwrap();
    Theirs {
        vpc: texts(&vpcs, "vpcId").remove(0),
        private: subnets(aws, "theirs", "private").await,
        public: subnets(aws, "theirs", "public").await,
        role: role(aws).await,
        reservation: reservation(aws).await,
    }
}

/// A fleet in it.
fn within(theirs: &Theirs) -> String {
    let Theirs { vpc, private, public, role, reservation } = theirs;
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
    fleet("prod", &format!("{network}{SYSTEM}{pools}"))
}

/// Of what is new, so much is there of each kind.
fn counts(new: &[&String]) {
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
        let found = new.iter().filter(|line| line.starts_with(kind)).count();
        assert_eq!(found, wanted, "{kind}: {new:#?}");
    }
}

/// Another `up` makes no call that changes anything.
async fn unchanged(stage: &Stage, file: &Path, more: &[&str]) -> Finished {
    let since = stage.account.calls_so_far().await.unwrap();
    let again = control(stage, "up", file, more).await.expect(ExitCode::Success).unwrap();
    let calls = of_control(&stage.account.calls_since(since).await.unwrap());
    let changing: Vec<_> = calls.iter().filter(|call| !call.is_read()).collect();
    assert!(changing.is_empty(), "{changing:?}");
    again
}

/// The tags of these resources, as EC2 writes them.
async fn tags(aws: &Emulator, ids: &[String]) -> String {
    let values: Vec<String> = (1..=ids.len()).map(|at| format!("Filter.1.Value.{at}")).collect();
    let values = values.iter().map(String::as_str).zip(ids.iter().map(String::as_str));
    let filter: Vec<(&str, &str)> = values.chain([("Filter.1.Name", "resource-id")]).collect();
    aws.query("ec2", "DescribeTags", &filter).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_in_what_is_there_already_leaves_it_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await.unwrap();
    let aws = aws(&stage);
    let their_file = dir.path().join("theirs.yaml");
    let theirs = theirs(&stage, &aws, &their_file).await;
    let ours = dir.path().join("ours.yaml");
    std::fs::write(&ours, within(&theirs)).unwrap();
    let before = stage.account.holds().await.unwrap();
    let begin = stage.account.calls_so_far().await.unwrap();
    control(&stage, "up", &ours, &["--yes"]).await.expect(ExitCode::Success).unwrap();

    let held = stage.account.holds().await.unwrap();
    counts(&held.iter().filter(|line| !before.contains(line)).collect::<Vec<_>>());
    let id = theirs.reservation.as_str();
    let filter = [("Filter.1.Name", "capacity-reservation-id"), ("Filter.1.Value.1", id)];
    let inside = aws.query("ec2", "DescribeInstances", &filter).await.unwrap();
    assert_eq!(texts(&inside, "instanceId").len(), 1, "{inside}");
    let again = unchanged(&stage, &ours, &["--yes"]).await;
    assert!(again.stderr.contains("Unchanged: prod is as asked"), "{}", again.stderr);

    // A subnet of nobody: all of it is said, and nothing touched.
    let bad = dir.path().join("bad.yaml");
    let text = within(&theirs).replace(&theirs.private[1], "subnet-00000000");
    std::fs::write(&bad, text).unwrap();
    let said = control(&stage, "doctor", &bad, &[]).await;
    let said = said.expect(ExitCode::PreflightBlocked).unwrap().stderr;
    assert!(said.contains("there is no subnet `subnet-00000000`"), "{said}");
    assert!(said.contains("the fleet has no subnet in `us-east-1b`"), "{said}");

    control(&stage, "down", &ours, &[]).await.expect(ExitCode::Success).unwrap();
    stage.account.comes_to(&before).await.unwrap();
    // Of what is theirs, only tags of subnets were written, and they are gone.
    let tags = tags(&aws, &[&theirs.private[..], &theirs.public[..]].concat()).await;
    assert!(!tags.contains("kubernetes.io/cluster/prod"), "{tags}");
    let calls = of_control(&stage.account.calls_since(begin).await.unwrap());
    for op in ["CreateVpc", "CreateSubnet", "CreateRoute", "DeleteSubnet", "DeleteVpc"] {
        assert!(calls.iter().all(|call| call.operation != op), "{op}");
    }
    control(&stage, "down", &their_file, &[]).await.expect(ExitCode::Success).unwrap();
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
        unchanged(&stage, &file, &through).await;
        control(&stage, "down", &file, &[]).await.expect(ExitCode::Success).unwrap();
        stage.account.comes_to(&empty).await.unwrap();
    }
    stage.world.down().await.unwrap();
}
