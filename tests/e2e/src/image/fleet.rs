//! A fleet whose nodes boot from an image of ours: user data configures them, and installs nothing.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use contract::ExitCode;

use crate::programs::Output;
use crate::suite::Suite;
use crate::suite::node::Node;

/// The longest that the fleet may take to come up or to go.
const MOVED: Duration = Duration::from_secs(300);

/// The fleet file.
fn file(image: &str) -> String {
    let mut text = "apiVersion: rollcall.dev/v1alpha1\nkind: Fleet\nname: baked\nregion: us-east-1\n\
         kubernetes: \"1.34\"\nagent: {baked: true}\nnetwork: {cidr: 10.9.0.0/16, zones: 2, nat: one}\npools:\n"
        .to_owned();
    for (name, class, kind, more) in [
        ("system", "system", "m6i.large", ""),
        ("gpu", "gpu", "g5.12xlarge", ", devicePlugin: install"),
    ] {
        let _ = writeln!(
            text,
            "  - {{name: {name}, class: {class}, instanceType: {kind}, image: {image}, size: {{min: 0, desired: 1, max: 1}}{more}}}"
        );
    }
    text
}

/// Boots a fleet from the image, looks at its nodes from inside, and takes it down. Says how long it took to come up.
///
/// # Errors
/// When it does not come up, or a node is not what the image must make of it.
pub async fn joins(suite: &Suite, image: &str) -> anyhow::Result<Duration> {
    let path = suite.fleet();
    std::fs::write(&path, file(image)).with_context(|| format!("could not write `{path}`"))?;
    let began = Instant::now();
    control(suite, &["up", "-f", &path, "--yes"]).await.context("the fleet did not come up")?;
    let took = began.elapsed();
    for pool in ["system", "gpu"] {
        let node = suite.node(pool, 0).await?;
        suite.joined(&node).await?;
        looked_at(&node).await.with_context(|| format!("the node of {pool}"))?;
    }
    control(suite, &["down", "-f", &path, "--yes"]).await.context("the fleet did not go")?;
    Ok(took)
}

async fn control(suite: &Suite, arguments: &[&str]) -> anyhow::Result<()> {
    let ended = suite.world.programs.run("control", arguments, Output::Captured, MOVED).await?;
    ended.expect(ExitCode::Success).map(drop)
}

/// What a node says of itself from inside.
async fn looked_at(node: &Node) -> anyhow::Result<()> {
    // The agent came with the image: no script has installed it.
    let agent = node.asked(&["/usr/bin/rollcall-agent", "--version"]).await?;
    let manifest = node.asked(&["cat", "/usr/share/rollcall/image.json"]).await?;
    let manifest: serde_json::Value =
        serde_json::from_str(&manifest).context("an image manifest that is no JSON")?;
    let version =
        manifest["agent"]["version"].as_str().context("no agent in the image's manifest")?;
    ensure!(
        agent == format!("rollcall-agent {version}"),
        "`{agent}` runs, the image was made with {version}"
    );
    let scripts = Path::new("/var/lib/cloud/instances");
    let ran = node.asked(&["find", &scripts.display().to_string(), "-name", "part-*"]).await?;
    ensure!(ran.is_empty(), "a script of the user data has run: {ran}");
    for unit in ["rollcall-join.service", "rollcall-agent.service", "kubelet.service"] {
        let state = node.property(unit, "ActiveState").await?;
        ensure!(state == "active", "{unit} is {state}");
    }
    let run = node.property("nodeadm-run.service", "ActiveEnterTimestampMonotonic").await?;
    ensure!(run == "0", "the stock nodeadm-run has started");
    let id = node.asked(&["cat", "/etc/machine-id"]).await?;
    ensure!(id.len() == 32, "the node has no id of its own: `{id}`");
    let keys = node.asked(&["ls", "/etc/ssh"]).await?;
    ensure!(keys.contains("ssh_host_"), "the node has made no host key of its own: {keys}");
    // Nothing but its own units: what systemd says of Debian's is not ours.
    let mut verify = vec!["systemd-analyze", "verify", "--man=no"];
    verify.extend([
        "rollcall-join.service",
        "rollcall-agent.service",
        "rollcall-fallback.service",
        "rollcall-gpu-reset.path",
        "kubelet.service",
    ]);
    let verified = node.run(&verify).await?;
    let said: Vec<&str> =
        verified.stderr.lines().filter(|line| line.contains("rollcall")).collect();
    ensure!(
        verified.code == 0 && said.is_empty(),
        "systemd-analyze verify says: {}",
        verified.stderr
    );
    let failed = node.asked(&["systemctl", "--failed", "--no-legend", "--plain"]).await?;
    ensure!(!failed.contains("rollcall"), "units of ours have failed: {failed}");
    Ok(())
}
