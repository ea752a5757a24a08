//! What a user does with the cluster next: kubectl, and a pod.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use contract::ExitCode;
use lab::kubernetes::real::Parts;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::suite::Suite;

const PATIENCE: Duration = Duration::from_secs(60);

/// An image that every node of the lab has.
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: one-gpu}
spec:
  tolerations: [{operator: Exists}]
  containers:
    - name: one-gpu
      image: 602401143452.dkr.ecr.us-east-1.amazonaws.com/eks/coredns:v1.12.4-eksbuild.1
      imagePullPolicy: Never
      resources: {limits: {nvidia.com/gpu: 1}}
";

async fn kubectl(suite: &Suite, arguments: &[&str], input: &str) -> anyhow::Result<String> {
    let program = Parts::find()?.path("kubernetes")?.with_file_name("kubectl");
    let bin = suite.world.programs.bin.display();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new(program)
        .arg("--kubeconfig")
        .arg(kubeconfig(suite).await?)
        .args(arguments)
        .envs(suite.world.programs.env.iter().map(|(key, value)| (key, value)))
        .env("PATH", format!("{bin}:{path}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("could not start kubectl")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await?;
    }
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let ended = ended.context("kubectl has not ended")??;
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    let complained = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "kubectl {}: {said}{complained}", arguments.join(" "));
    Ok(said)
}

async fn kubeconfig(suite: &Suite) -> anyhow::Result<PathBuf> {
    let path = suite.dir.join("kubeconfig");
    let text = path.display().to_string();
    let written = suite.world.control(&["kubeconfig", "--kubeconfig", &text]).await?;
    written.expect(ExitCode::Success)?;
    Ok(path)
}

pub(super) async fn kubectl_lists_the_nodes(suite: &Suite) -> anyhow::Result<()> {
    let nodes = kubectl(suite, &["get", "nodes", "--no-headers"], "").await?;
    let ready = nodes.lines().filter(|line| line.split_whitespace().nth(1) == Some("Ready"));
    ensure!(ready.count() == 4, "{nodes}");
    Ok(())
}

pub(super) async fn a_pod_gets_a_gpu(suite: &Suite) -> anyhow::Result<()> {
    kubectl(suite, &["apply", "-f", "-"], POD).await?;
    kubectl(suite, &["wait", "--for=condition=Ready", "pod/one-gpu", "--timeout=45s"], "").await?;
    kubectl(suite, &["delete", "pod/one-gpu", "--wait=false"], "").await?;
    Ok(())
}
