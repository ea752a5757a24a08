//! `make demo`: the product's main job, told from `control plan` to `control down`.
//!
//! Every command is printed as a user would type it, and then run; every claim that the story makes
//! is checked, and the demo fails where one does not hold. `KEEP=1` leaves the lab up.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode as ProcessExit;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use contract::ExitCode;
use e2e::programs::Programs;
use e2e::world::World;
use serde_json::{Value, json};

#[path = "demo/story.rs"]
mod story;

use story::{Story, count, nodes_of};

const FLEET: &str = "examples/demo.yaml";
/// How long two repaired nodes may take to prove themselves and join.
const HEALED: Duration = Duration::from_secs(60);

fn main() -> ProcessExit {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.context("could not start the runtime").and_then(|rt| rt.block_on(run())) {
        Ok(()) => ProcessExit::SUCCESS,
        Err(error) => {
            story::complain(&error);
            ProcessExit::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let programs = Programs::of_this_build()?;
    let dir = programs.root.join("target/demo");
    std::fs::create_dir_all(&dir).with_context(|| format!("could not make `{}`", dir.display()))?;
    let keep = std::env::var_os("KEEP").is_some_and(|value| !value.is_empty() && value != "0");
    let mut story = Story::new(World { dir: dir.join("lab"), programs });

    let told = tokio::select! {
        told = tell(&mut story, &dir, keep) => told,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    if keep {
        story.how_to_look();
        return told;
    }
    let ended = story.world.down().await;
    told.and(ended)
}

async fn tell(story: &mut Story, dir: &Path, keep: bool) -> anyhow::Result<()> {
    let started = Instant::now();
    let components = open(story).await?;
    let reasons = build(story).await?;
    explain(story).await?;
    let changed = heal(story, dir).await?;
    metrics(story).await?;
    let nodes = nodes_of(&story.world.status().await?, "gpu");
    if keep {
        return Ok(());
    }
    let leftovers = close(story, dir).await?;

    let summary = json!({
        "nodes": {"ready": count(&nodes, "ready"), "failed": count(&nodes, "failed")},
        "reasons": reasons,
        "second_up_changed": changed,
        "leftovers": leftovers,
        "seconds": started.elapsed().as_secs(),
        "components": components,
    });
    let path = dir.join("summary.json");
    std::fs::write(&path, serde_json::to_string_pretty(&summary)? + "\n")
        .with_context(|| format!("could not write `{}`", path.display()))?;
    story.end(&summary);
    Ok(())
}

/// The lab comes up; two nodes of the fleet to be will be broken.
async fn open(story: &mut Story) -> anyhow::Result<Value> {
    story.chapter("A lab: AWS, Kubernetes and GPUs on this machine");
    story.lab("up", &["--speed", "0.01", "--kubernetes", "standin", "--nodes", "process"]).await?;
    story.world.adopt()?;
    let status = story.world.lab_status().await?;

    story.chapter("What will be built");
    story.control(&["plan", "-f", FLEET], ExitCode::Success).await?;

    story.chapter("Two of the four GPU nodes will come up broken");
    story.lab("fault", &["gpu/1", "driver-library-mismatch"]).await?;
    story.lab("fault", &["gpu/2", "gpu-missing"]).await?;
    Ok(status["components"].clone())
}

/// `up` builds the fleet, and ends by naming both causes.
async fn build(story: &mut Story) -> anyhow::Result<BTreeMap<String, u64>> {
    story.chapter("One command up");
    story.control(&["up", "-f", FLEET, "--yes"], ExitCode::NodesFailed).await?;

    let status = story.world.status().await?;
    let nodes = nodes_of(&status, "gpu");
    ensure!(count(&nodes, "ready") == 2 && count(&nodes, "failed") == 2, "{nodes:#?}");
    let mut reasons = BTreeMap::new();
    for node in nodes.iter().filter(|node| node["verdict"] == "failed") {
        let first = node["reasons"][0].as_str().context("a failed node without a reason")?;
        *reasons.entry(first.to_owned()).or_insert(0) += 1;
    }
    let named: Vec<&str> = reasons.keys().map(String::as_str).collect();
    ensure!(named == ["DriverLibraryMismatch", "GpuCountShort"], "named: {named:?}");
    story.kubelet_never_ran_on_failed(&nodes).await?;
    Ok(reasons)
}

/// Why: the fleet at a glance, and each of the two.
async fn explain(story: &mut Story) -> anyhow::Result<()> {
    story.chapter("Which nodes, and why");
    story.control(&["status"], ExitCode::NodesFailed).await?;
    for node in ["gpu/1", "gpu/2"] {
        story.control(&["diagnose", node], ExitCode::NodesFailed).await?;
        story.reports_on_ssm_and_console(node).await?;
    }
    Ok(())
}

/// The faults go; nothing is restarted, and the two nodes join by themselves.
async fn heal(story: &mut Story, dir: &Path) -> anyhow::Result<u64> {
    story.chapter("The faults are lifted; nothing is restarted");
    story.lab("fault", &["gpu/1", "clear"]).await?;
    story.lab("fault", &["gpu/2", "clear"]).await?;
    let since = Instant::now();
    loop {
        let nodes = nodes_of(&story.world.status().await?, "gpu");
        if count(&nodes, "ready") == 4 {
            break;
        }
        ensure!(since.elapsed() < HEALED, "the repaired nodes have not joined: {nodes:#?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    story.say(&format!("Both proved themselves and joined after {} s.", since.elapsed().as_secs()));

    let up = ["up", "-f", FLEET, "--yes", "-o", "json"];
    let result = story.control_to_file(&up, &dir.join("second-up.json")).await?;
    story.control(&["status"], ExitCode::Success).await?;
    result["changed"].as_u64().context("`up -o json` names no `changed`")
}

/// A healthy node's metrics, by dcgm-exporter's names.
async fn metrics(story: &mut Story) -> anyhow::Result<()> {
    story.chapter("A healthy node's metrics");
    let address = story.address_of("gpu/0").await?;
    let command = format!(
        "curl -s http://{address}:9400/metrics | grep -E \
         '^(DCGM_FI_DEV_(GPU_TEMP|POWER_USAGE|FB_FREE)\\{{gpu=\"[01]\"|rollcall_join)'"
    );
    let shown = story.shell(&command).await?;
    ensure!(shown.contains("DCGM_FI_DEV_GPU_TEMP"), "no DCGM_FI_DEV_GPU_TEMP among the metrics");
    Ok(())
}

/// Down, and down again.
async fn close(story: &mut Story, dir: &Path) -> anyhow::Result<u64> {
    story.chapter("Nothing is left");
    story.control(&["down", "--yes"], ExitCode::Success).await?;
    let down = ["down", "--yes", "-o", "json"];
    let result = story.control_to_file(&down, &dir.join("second-down.json")).await?;
    result["leftovers"].as_u64().context("`down -o json` names no `leftovers`")
}
