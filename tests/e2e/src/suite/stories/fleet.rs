//! The main job from outside: up, and down to nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use contract::ExitCode;

use crate::suite::Suite;

/// From nothing to four Ready nodes, set-up of the parts apart.
const UP_WITHIN: Duration = Duration::from_secs(180);

pub(super) async fn up(suite: &Suite) -> anyhow::Result<()> {
    let example = suite.world.programs.root.join("examples/demo.yaml");
    let example = std::fs::read_to_string(&example).context("no examples/demo.yaml")?;
    let fleet = example.replace("desired: 4, max: 4", "desired: 2, max: 4");
    ensure!(fleet != example, "examples/demo.yaml has another number of GPU nodes");
    std::fs::write(suite.fleet(), fleet).context("could not write the fleet file")?;

    let started = Instant::now();
    let up = suite.world.control(&["up", "-f", &suite.fleet(), "--yes", "-o", "json"]).await?;
    let result = up.expect(ExitCode::Success)?.json()?;
    ensure!(result["nodes"]["ready"] == 4, "{result:#}");
    ensure!(started.elapsed() <= UP_WITHIN, "up took {} s", started.elapsed().as_secs());
    let nodes = suite.cluster().await?.nodes(&suite.world).await?;
    ensure!(nodes.len() == 4 && nodes.iter().all(|node| node.ready), "{nodes:#?}");
    Ok(())
}

pub(super) async fn down(suite: &Suite) -> anyhow::Result<()> {
    suite.terminate_launched().await?;
    let down = suite.world.control(&["down", "-f", &suite.fleet(), "--yes", "-o", "json"]).await?;
    let result = down.expect(ExitCode::Success)?.json()?;
    ensure!(result["leftovers"] == 0, "{result:#}");
    let status = suite.world.lab_status().await?;
    ensure!(status["nodes"].as_array().is_some_and(Vec::is_empty), "{:#}", status["nodes"]);
    Ok(())
}
