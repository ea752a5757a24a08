//! `make bench`, the half about `control`: what a plan, a look and a walk up cost on fleets of size.
//! Nodes boot from the torture's double of the agent: what is measured is `control`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its table is its purpose")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode as ProcessExit;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use contract::ExitCode;
use e2e::programs::Programs;
use e2e::suite::cluster::Cluster;
use e2e::torture::calls::of_control;
use e2e::torture::lives::{Stage, Way};
use lab::bench::summary::Machine;
use lab::bench::{Figure, Summary};
use lab::instances::NO_NODE_TAG;
use serde_json::{Value, json};

/// Pools of the fleet that is planned.
const POOLS: usize = 50;
/// Instances of the fleet that is looked at.
const INSTANCES: usize = 1000;
/// Instances per RunInstances.
const BATCH: usize = 100;
/// Nodes of the pool that is brought up.
const NODES: usize = 100;
/// What the kernel counts processor time in, on every architecture that EKS has.
const TICKS_PER_SECOND: f64 = 100.0;
/// Samples of what is quick.
const ROUNDS: usize = 5;

/// What `control` costs on fleets of size.
#[derive(Debug, Parser)]
#[command(name = "fleet_bench", version)]
struct Cli {
    /// Measure these alone: plan, status, up
    #[arg(long, value_delimiter = ',', default_value = "plan,status,up")]
    only: Vec<String>,
    /// By how much AWS's durations are shortened while 100 nodes come up
    #[arg(long, default_value_t = 0.5)]
    speed: f64,
}

fn main() -> ProcessExit {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.context("could not start the runtime").and_then(|rt| rt.block_on(run(&cli))) {
        Ok(true) => ProcessExit::SUCCESS,
        Ok(false) => ProcessExit::FAILURE,
        Err(error) => {
            eprintln!("fleet_bench: FAILED: {error:#}");
            ProcessExit::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> anyhow::Result<bool> {
    let root = Programs::of_this_build()?.root;
    let out = root.join("target/bench/control.json");
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let dir = tempfile::tempdir().context("no folder for a lab")?;
    let at = |name: &str| -> PathBuf { dir.path().join(name) };
    let asked = |name: &str| cli.only.iter().any(|only| only == name);
    let mut figures = Vec::new();
    // A lab each: `status` is asked of a fleet with one pool more than the system's.
    if asked("plan") {
        let stage = Stage::open(&at("pools")).await?;
        figures.extend(plan(&stage).await?);
        stage.world.down().await?;
    }
    if asked("status") {
        let stage = Stage::open(&at("instances")).await?;
        figures.extend(status(&stage).await?);
        stage.world.down().await?;
    }
    if asked("up") {
        let stage = Stage::open_at(&at("hundred"), cli.speed).await?;
        figures.extend(up(&stage, &root, cli.speed).await?);
        stage.world.down().await?;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let gear = "API server stand-in, process nodes, agent's double, debug build of control";
    let summary = Summary {
        at: jiff::Timestamp::now().to_string(),
        machine: Machine { cores, load: load.trim().to_owned() },
        parts: BTreeMap::from([("gear", gear.to_owned())]),
        figures,
    };
    write(&out, &summary)?;
    print!("{}", summary.table());
    eprintln!("fleet_bench: {}", out.display());
    Ok(summary.figures.iter().all(Figure::holds))
}

fn write(path: &Path, summary: &Summary) -> anyhow::Result<()> {
    let what = || format!("could not write `{}`", path.display());
    std::fs::create_dir_all(path.parent().context("no folder")?).with_context(what)?;
    let fresh = path.with_extension("new");
    let text = serde_json::to_string_pretty(summary).context("no JSON of the summary")?;
    std::fs::write(&fresh, text + "\n").with_context(what)?;
    std::fs::rename(&fresh, path).with_context(what)
}

/// A run of `control`: its wall time, its own processor time, and its calls.
struct Run {
    seconds: f64,
    processor: f64,
    calls: usize,
}

async fn measure(stage: &Stage, args: &[&str]) -> anyhow::Result<Run> {
    let since = stage.account.calls_so_far().await?;
    let (began, before) = (Instant::now(), children()?);
    let ended = stage.world.control(args).await?;
    let (seconds, processor) = (began.elapsed().as_secs_f64(), children()? - before);
    // A node that is not proven is what `status` finds here, and says with its exit code.
    ensure!(ended.code <= ExitCode::NodesFailed as i32, "{}{}", ended.stdout, ended.stderr);
    let calls = of_control(&stage.account.calls_since(since).await?).len();
    Ok(Run { seconds, processor, calls })
}

/// Processor time of the children that have ended: user and system, in seconds (proc_pid_stat(5)).
fn children() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("no /proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // cutime and cstime are the 16th and 17th; the first two end at the bracket.
    let ticks = fields.skip(13).take(2).map(|field| field.parse::<u32>().map(f64::from));
    Ok(ticks.sum::<Result<f64, _>>().context("no ticks")? / TICKS_PER_SECOND)
}

fn pools(stage: &Stage, gpu: impl Iterator<Item = (String, usize)>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&stage.fleet).context("no fleet file")?;
    let mut text: String =
        text.lines().filter(|l| !l.contains("name: gpu")).map(|l| format!("{l}\n")).collect();
    for (name, nodes) in gpu {
        let size = format!("{{min: 0, desired: {nodes}, max: {}}}", nodes.max(1));
        text.push_str(&format!(
            "  - {{name: {name}, class: apps, instanceType: m6i.large, size: {size}}}\n"
        ));
    }
    std::fs::write(&stage.fleet, text).context("could not write the fleet file")
}

/// The plan of a fleet of many pools that is as asked.
async fn plan(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    stage.account.limit(&json!({"eks:nodegroups": 2 * POOLS})).await?;
    pools(stage, (1..POOLS).map(|number| (format!("pool-{number}"), 0)))?;
    stage.run(Way::Up).await?.expect(ExitCode::Success)?;
    let (fleet, tarball) = (path(&stage.fleet)?, path(&stage.tarball)?);
    let args = ["plan", "-f", &fleet, "--agent-tarball", &tarball, "--detailed-exitcode"];
    stage.world.control(&args).await?.expect(ExitCode::Success)?;
    let (mut seconds, mut processor) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let run = measure(stage, &args).await?;
        seconds.push(run.seconds);
        processor.push(run.processor);
    }
    Ok(vec![
        Figure::of(format!("plan of {POOLS} pools"), "s", seconds).within(2.0),
        Figure::of(format!("plan of {POOLS} pools: processor"), "s", processor),
    ])
}

fn path(path: &Path) -> anyhow::Result<String> {
    Ok(path.to_str().context("a path is not UTF-8")?.to_owned())
}

/// A look at many instances, each with its Node object.
async fn status(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    pools(stage, std::iter::empty())?;
    stage.run(Way::Up).await?.expect(ExitCode::Success)?;
    launch(stage).await?;
    let (mut seconds, mut processor, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let run = measure(stage, &["status", "-o", "json"]).await?;
        seconds.push(run.seconds);
        processor.push(run.processor);
        calls.push(f64::from(u32::try_from(run.calls).unwrap_or(u32::MAX)));
    }
    let of = format!("status of {INSTANCES} instances");
    Ok(vec![
        Figure::of(format!("{of}: calls"), "", calls).within(60.0),
        Figure::of(format!("{of}: processor"), "s", processor).within(1.0),
        Figure::of(format!("{of}: wall"), "s", seconds),
    ])
}

/// Instances that no node boots from, and Node objects that nothing but this bench keeps: what is
/// measured reads them and asks no node.
async fn launch(stage: &Stage) -> anyhow::Result<()> {
    let image = stage.account.instances().await?;
    let image = image.first().and_then(|one| one["imageId"].as_str()).context("no image")?;
    let aws = stage.operator()?;
    for _ in 0..INSTANCES / BATCH {
        let count = BATCH.to_string();
        let mut parameters = vec![
            ("ImageId".to_owned(), image.to_owned()),
            ("InstanceType".to_owned(), "m6i.large".to_owned()),
            ("MinCount".to_owned(), count.clone()),
            ("MaxCount".to_owned(), count),
            ("TagSpecification.1.ResourceType".to_owned(), "instance".to_owned()),
        ];
        let ours =
            [("rollcall:fleet", "prod"), ("rollcall:layer", "gpu"), ("rollcall:pool", "many")];
        let tags = ours.into_iter().chain([(NO_NODE_TAG, "many")]);
        for (number, (key, value)) in (1..).zip(tags) {
            let tag = format!("TagSpecification.1.Tag.{number}");
            parameters.push((format!("{tag}.Key"), key.to_owned()));
            parameters.push((format!("{tag}.Value"), value.to_owned()));
        }
        let parameters: Vec<_> =
            parameters.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        aws.query("ec2", "RunInstances", &parameters).await?;
    }
    register(stage, &running(stage, "many").await?).await
}

/// The instances of a pool that run.
async fn running(stage: &Stage, pool: &str) -> anyhow::Result<Vec<Value>> {
    let mut found = stage.account.instances().await?;
    found.retain(|one| one["tags"]["rollcall:pool"] == pool && one["state"] == "running");
    Ok(found)
}

/// Makes their Node objects, Ready, in the place of kubelets.
async fn register(stage: &Stage, instances: &[Value]) -> anyhow::Result<()> {
    let cluster = Cluster::of(&stage.world).await?;
    for instance in instances {
        let text = |key: &str| instance[key].as_str().unwrap_or_default();
        let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady"});
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": text("privateDnsName")},
            "spec": {"providerID": format!("aws:///{}/{}", text("zone"), text("instanceId"))},
            "status": {"conditions": [ready]},
        });
        cluster.create(&stage.world, "api/v1/nodes", &node).await?;
    }
    Ok(())
}

/// Registers the nodes of a pool once all of its instances run: as soon as nodes can be there.
async fn register_once_they_run(stage: &Stage, pool: &str, count: usize) -> anyhow::Result<()> {
    loop {
        let found = running(stage, pool).await?;
        if found.len() >= count {
            return register(stage, &found).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A pool of many nodes comes up: what `up` takes beyond what AWS does. Its nodes boot in no time:
/// what a hundred boots cost this machine is none of `control`'s.
async fn up(stage: &Stage, root: &Path, speed: f64) -> anyhow::Result<Vec<Figure>> {
    pools(stage, std::iter::once(("hundred".to_owned(), NODES)))?;
    let text = std::fs::read_to_string(&stage.fleet).context("no fleet file")?;
    let marked = format!("tags: {{\"{NO_NODE_TAG}\": hundred, ");
    ensure!(text.contains("tags: {"), "the fleet has no tags");
    std::fs::write(&stage.fleet, text.replace("tags: {", &marked)).context("no fleet file")?;
    let path = critical_path(root)? * speed;
    let began = Instant::now();
    let up = async {
        let up = stage.run_within(Way::Up, Duration::from_secs(1800)).await?;
        up.expect(ExitCode::Success)?;
        anyhow::Ok(began.elapsed().as_secs_f64())
    };
    // Its end does not wait for the nodes' double, which may have nothing left to do.
    let wall = tokio::select! {
        wall = up => wall?,
        Err(error) = register_once_they_run(stage, "hundred", NODES) => return Err(error),
    };
    Ok(vec![
        Figure::of(
            format!("up with {NODES} nodes beyond AWS's own time"),
            "%",
            vec![(wall - path) / path * 100.0],
        )
        .within(10.0),
        Figure::of(format!("up with {NODES} nodes: AWS's own time"), "s", vec![path]),
    ])
}

/// What AWS takes at least, one after the other, at its own speed: a NAT gateway, the control plane,
/// an add-on, then two node groups with their instances.
fn critical_path(root: &Path) -> anyhow::Result<f64> {
    let file = root.join("tests/lab/emulator/rollcall_emulator/durations.py");
    let text = std::fs::read_to_string(&file).context("could not read the emulator's durations")?;
    let seconds = |name: &str| -> anyhow::Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")));
        line.with_context(|| format!("no `{name}`"))?.trim().parse().context("no number")
    };
    let group = seconds("NODEGROUP_LAUNCH")? + seconds("INSTANCE_START")?;
    Ok(seconds("NAT_CREATE")? + seconds("CLUSTER_CREATE")? + seconds("ADDON_CREATE")? + 2.0 * group)
}
