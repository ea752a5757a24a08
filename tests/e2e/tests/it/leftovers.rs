//! What a fleet's workloads and earlier lives leave in the account: `down` and `sweep` find it, show it,
//! and remove it.

use contract::ExitCode;
use e2e::suite::cluster::Cluster;
use e2e::torture::lives::{Stage, Way};
use serde_json::{Value, json};

/// What controllers in a cluster make: in place of them, which no lab has.
const LITTER: &str = r#"
import boto3
ec2, balancing, logs = boto3.client("ec2"), boto3.client("elbv2"), boto3.client("logs")
mine = [{"Name": "tag:rollcall:fleet", "Values": ["prod"]}]
vpc = ec2.describe_vpcs(Filters=mine)["Vpcs"][0]["VpcId"]
inside = [{"Name": "vpc-id", "Values": [vpc]}]
subnets = [s["SubnetId"] for s in ec2.describe_subnets(Filters=inside)["Subnets"]]
owned = [{"Key": "kubernetes.io/cluster/prod", "Value": "owned"}]
others = [{"Key": "kubernetes.io/cluster/other", "Value": "owned"}]
balancing.create_load_balancer(Name="web", Subnets=subnets[:2], Type="network", Tags=owned)
balancing.create_load_balancer(Name="theirs", Subnets=subnets[:2], Tags=others)
group = [{"Key": "elbv2.k8s.aws/cluster", "Value": "prod"}]
balancing.create_target_group(Name="web", Protocol="TCP", Port=80, VpcId=vpc, Tags=group)
for tags in (owned, owned + [{"Key": "rollcall:retain", "Value": "true"}], others):
    volume = [{"ResourceType": "volume", "Tags": tags}]
    ec2.create_volume(AvailabilityZone="us-east-1a", Size=1, TagSpecifications=volume)
for name in ("/aws/eks/prod/cluster", "/aws/eks/prod/cluster-2"):
    logs.create_log_group(logGroupName=name)
ec2.create_network_interface(SubnetId=subnets[0], Description="aws-K8S-i-0abc")
"#;

/// Says what is left of it, and removes that.
const LEFT: &str = r#"
import boto3, json
ec2, balancing, logs = boto3.client("ec2"), boto3.client("elbv2"), boto3.client("logs")
balancers = balancing.describe_load_balancers()["LoadBalancers"]
volumes = ec2.describe_volumes()["Volumes"]
groups = [g["logGroupName"] for g in logs.describe_log_groups()["logGroups"]]
print(json.dumps({
    "balancers": [b["LoadBalancerName"] for b in balancers],
    "targets": len(balancing.describe_target_groups()["TargetGroups"]),
    "volumes": sorted("/".join(sorted(t["Key"] for t in v["Tags"])) for v in volumes),
    "logs": groups,
}))
for volume in volumes:
    ec2.delete_volume(VolumeId=volume["VolumeId"])
"#;

async fn python(stage: &Stage, script: &str) -> String {
    let root = &stage.world.programs.root;
    let python = std::env::var_os("LAB_PYTHON")
        .map_or_else(|| root.join("target/venv/bin/python"), Into::into);
    let mut command = tokio::process::Command::new(python);
    command.args(["-c", script]).envs(stage.world.programs.env.iter().cloned());
    let ended = command.output().await.unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}

async fn control(stage: &Stage, args: &[&str], code: ExitCode) -> e2e::Finished {
    stage.world.control(args).await.unwrap().expect(code).unwrap()
}

/// `kind name` of the rows that a removal has, workloads first.
fn rows(removal: &Value) -> Vec<String> {
    let steps = |part: &Value| part.as_array().cloned().unwrap_or_default();
    let layers = steps(&removal["layers"]).into_iter().flat_map(|layer| steps(&layer["steps"]));
    let row = |step: Value| {
        format!("{} {}", step["resource"].as_str().unwrap(), step["name"].as_str().unwrap())
    };
    steps(&removal["workloads"]).into_iter().chain(layers).map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_workloads_hold_is_shown_then_given_back_and_what_is_others_stays() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await.unwrap();
    let empty = stage.account.holds().await.unwrap();
    stage.run(Way::Up).await.unwrap().expect(ExitCode::Success).unwrap();
    python(&stage, LITTER).await;
    let cluster = Cluster::of(&stage.world).await.unwrap();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}], "selector": {"app": "web"}},
    });
    cluster.create(&stage.world, "api/v1/namespaces/default/services", &service).await.unwrap();

    let before = stage.account.holds().await.unwrap();
    let seen = control(&stage, &["down", "--dry-run", "-o", "json"], ExitCode::Success).await;
    let seen = seen.json().unwrap();
    let rows = rows(&seen);
    for row in ["service default/web", "log group /aws/eks/prod/cluster", "node group system"] {
        assert!(rows.iter().any(|found| found == row), "no `{row}` in {rows:#?}");
    }
    for (kind, count) in [("load balancer ", 1), ("target group ", 1), ("volume ", 1)] {
        assert_eq!(rows.iter().filter(|row| row.starts_with(kind)).count(), count, "{rows:#?}");
    }
    let held = serde_json::to_string(&seen["blocks"]).unwrap();
    for holder in ["node group system", "aws-K8S-i-0abc", "the eks cluster", "the nat gateway"] {
        assert!(held.contains(holder), "nothing is held by `{holder}`: {held}");
    }
    assert_eq!(stage.account.holds().await.unwrap(), before, "a dry run has changed something");

    let down = control(&stage, &["down", "--yes", "-o", "json"], ExitCode::Success).await;
    let down = down.json().unwrap();
    assert_eq!(down["leftovers"], 0, "{down:#}");
    let given_back = serde_json::to_string(&down["workloads"]).unwrap();
    assert!(
        given_back.contains("default/web") && given_back.contains("loadbalancer/"),
        "{given_back}"
    );
    let left: Value = serde_json::from_str(&python(&stage, LEFT).await).unwrap();
    let expected = json!({
        "balancers": ["theirs"], "targets": 0, "logs": ["/aws/eks/prod/cluster-2"],
        "volumes": ["kubernetes.io/cluster/other", "kubernetes.io/cluster/prod/rollcall:retain"],
    });
    assert_eq!(left, expected);
    stage.account.comes_to(&empty).await.unwrap();
    stage.world.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_life_left_is_swept_and_a_living_fleet_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await.unwrap();
    let empty = stage.account.holds().await.unwrap();
    let none = control(&stage, &["sweep"], ExitCode::Success).await;
    assert!(none.stderr.contains("Nothing is left over in us-east-1"), "{}", none.stderr);

    let (fleet, tarball) = (stage.fleet.to_str().unwrap(), stage.tarball.to_str().unwrap());
    let up = ["up", "-f", fleet, "--agent-tarball", tarball, "--yes", "--through"];
    control(&stage, &[&up[..], &["identity"]].concat(), ExitCode::Success).await;
    let before = stage.account.holds().await.unwrap();
    let shown = control(&stage, &["sweep", "-o", "json"], ExitCode::LeftoversRemain).await;
    let shown = shown.json().unwrap();
    assert_eq!(shown["fleets"][0]["fleet"], "prod", "{shown:#}");
    let rows = rows(&shown["fleets"][0]["removal"]);
    assert!(rows.iter().any(|row| row.starts_with("vpc ")), "{rows:#?}");
    assert_eq!(shown["left"], rows.len(), "{shown:#}");
    assert_eq!(stage.account.holds().await.unwrap(), before, "showing has changed something");
    control(&stage, &["sweep", "--fleet", "another", "--yes"], ExitCode::Success).await;
    assert_eq!(stage.account.holds().await.unwrap(), before, "another fleet's was removed");
    control(&stage, &["sweep", "--yes"], ExitCode::Success).await;
    stage.account.comes_to(&empty).await.unwrap();

    control(&stage, &[&up[..], &["cluster"]].concat(), ExitCode::Success).await;
    let before = stage.account.holds().await.unwrap();
    let kept = control(&stage, &["sweep", "--yes"], ExitCode::Success).await;
    assert!(kept.stderr.contains("control down --fleet prod"), "{}", kept.stderr);
    assert_eq!(stage.account.holds().await.unwrap(), before, "a living fleet was swept");
    stage.run(Way::Down).await.unwrap().expect(ExitCode::Success).unwrap();
    stage.world.down().await.unwrap();
}
