//! The evidence of a failed join reaches the fleet's bucket, and holds no secret that the node holds.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use contract::ExitCode;
use e2e::World;
use e2e::programs::Output;

const PATIENCE: Duration = Duration::from_secs(180);
/// The bucket that the identity layer keeps for the agent; any other would do.
const BUCKET: &str = "rollcall-prod-us-east-1-123456789012";
const PROXY_PASSWORD: &str = "canary-proxy-word";
const SECRET_KEY: &str = "wCanaryFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY12";
const TOKEN: &str = "Y2FuYXJ5LXRva2VuLWNhbmFyeS10b2tlbi1jYW5hcnk";

/// What S3 holds under `evidence/`, by key, unpacked. boto3 is what an operator would use.
const READ: &str = "
import boto3, gzip, json, os, sys
s3 = boto3.client('s3', endpoint_url=os.environ['AWS_ENDPOINT_URL'], region_name='us-east-1')
found = s3.list_objects_v2(Bucket=sys.argv[1], Prefix='evidence/').get('Contents', [])
read = lambda key: s3.get_object(Bucket=sys.argv[1], Key=key)['Body'].read()
print(json.dumps({o['Key']: gzip.decompress(read(o['Key'])).decode() for o in found}))
";

async fn bundles(world: &World) -> BTreeMap<String, String> {
    let python = std::env::var("LAB_PYTHON").unwrap_or_else(|_| {
        world.programs.root.join("target/venv/bin/python").display().to_string()
    });
    let output = tokio::process::Command::new(python)
        .args(["-c", READ, BUCKET])
        .envs(world.programs.env.iter().map(|(key, value)| (key, value)))
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The first bundle that says `what`.
async fn that_says(world: &World, what: &str) -> (String, String) {
    let start = Instant::now();
    loop {
        let found = bundles(world).await;
        if let Some(bundle) = found.into_iter().find(|(_, text)| text.contains(what)) {
            return bundle;
        }
        assert!(start.elapsed() < PATIENCE, "no evidence of `{what}` in S3");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn append(path: &Path, text: &str) {
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_reaches_the_bucket_without_the_nodes_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("lab");
    let world = World::up(&at, &["--kubernetes", "standin", "--nodes", "process"]).await.unwrap();
    let lay = async |fault: &str| {
        let laid = world.lab("fault", &["gpu/0", fault]).await.unwrap();
        laid.expect(ExitCode::Success).unwrap();
    };
    lay("gpu-missing").await;
    let file = dir.path().join("fleet.yaml");
    let fleet = format!("{}evidenceBucket: {BUCKET}\n", crate::fleet_of(1));
    std::fs::write(&file, fleet).unwrap();
    let up = ["up", "-f", file.to_str().unwrap(), "--yes", "-o", "json"];
    let up = world.programs.run("control", &up, Output::Captured, PATIENCE).await.unwrap();
    up.expect(ExitCode::NodesFailed).unwrap();
    let (key, _) = that_says(&world, "GpuCountShort").await;

    let status = world.lab_status().await.unwrap();
    let nodes = status["nodes"].as_array().unwrap();
    let node = nodes.iter().find(|node| node["pool"] == "gpu").unwrap();
    let (root, instance) = (node["root"].as_str().unwrap(), node["instance"].as_str().unwrap());
    assert!(key.starts_with("evidence/prod/arn:") && key.contains(instance), "{key}");
    append(
        &Path::new(root).join("etc/eks/kubelet/environment"),
        &format!("HTTPS_PROXY=http://joe:{PROXY_PASSWORD}@proxy.corp:3128\n"),
    );
    append(
        &Path::new(root).join("run/systemd-double/rollcall-join.service.log"),
        &format!(
            "env: AWS_SECRET_ACCESS_KEY={SECRET_KEY}\n\
             kubelet: could not use token k8s-aws-v1.{TOKEN} against the API server\n"
        ),
    );
    lay("driver-library-mismatch").await;
    let (_, text) = that_says(&world, "DriverLibraryMismatch").await;
    for word in ["http://[redacted]@proxy.corp:3128", "could not use token"] {
        assert!(text.contains(word), "no `{word}`: {text}");
    }
    for (key, text) in bundles(&world).await {
        for canary in [PROXY_PASSWORD, SECRET_KEY, TOKEN] {
            assert!(!text.contains(canary), "`{canary}` in `{key}`");
        }
    }
    world.down().await.unwrap();
}
