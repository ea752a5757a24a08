//! `lab bench`: what the agent costs, in a lab of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use contract::ExitCode;
use tokio::time::timeout;

use crate::bench::join::{Named, Node, Sample, Way};
use crate::bench::summary::{Machine, Peer};
use crate::bench::{Figure, Summary, program};
use crate::cli::{BenchArgs, Place, Up};
use crate::corpus::stage::{self, Stage};
use crate::gear::{KubernetesGear, NodesGear};
use crate::output;

/// Faults that are there when the agent starts, with the reason that each must get.
const FAULTS: [(&str, &str); 3] = [
    ("gpu-lost=3", "GpuLost"),
    ("driver-library-mismatch", "DriverLibraryMismatch"),
    ("missing=/usr/bin/nodeadm", "NodeadmMissing"),
];

/// How long all joins together may take.
const WHOLE: Duration = Duration::from_secs(900);

/// Who stands beside us in a join.
const PEER: &str = "nodeadm and kubelet alone (stand-ins)";

pub(super) async fn run(arguments: BenchArgs) -> anyhow::Result<ExitCode> {
    let fleet = Path::new("tests/corpus/fleet.yaml").canonicalize();
    let fleet = fleet.context("run it in the repository: there is no tests/corpus/fleet.yaml")?;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let tarball = match &arguments.baked_agent {
        Some(path) => path.clone(),
        None => stage::beside("rollcall-agent.tar.gz")?,
    };
    let place = Place { dir: arguments.dir.clone() };
    let up = Up {
        place: Place { dir: arguments.dir.clone() },
        speed: 0.005,
        kubernetes: KubernetesGear::Standin,
        nodes: NodesGear::Process,
        python: None,
        baked_agent: Some(tarball),
    };
    let (directory, record) = super::up::start(up).await?;
    let measured = async {
        let stage = Stage::set(directory, record, &fleet).await?;
        let measured = timeout(WHOLE, measure(&stage, &arguments)).await;
        measured.with_context(|| format!("the run has not ended in {} s", WHOLE.as_secs()))?
    }
    .await;
    super::down::end(&place).await?;
    let mut figures = measured?;
    let nodeadm = nodeadm();
    figures.extend(program::figures(&arguments.agent, nodeadm.as_deref())?);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let summary = Summary {
        at: jiff::Timestamp::now().to_string(),
        machine: Machine { cores, load: load.trim().to_owned() },
        parts: parts(nodeadm.is_some()),
        figures,
    };
    write(&arguments.out, &summary)?;
    output::data(&summary.table());
    output::progress(&format!("bench: {}", arguments.out.display()));
    let holds = summary.figures.iter().all(Figure::holds);
    Ok(if holds { ExitCode::Success } else { ExitCode::Error })
}

async fn measure(stage: &Stage, arguments: &BenchArgs) -> anyhow::Result<Vec<Figure>> {
    let agent = arguments.agent.canonicalize().context("there is no agent to measure")?;
    let mut node = Node::launch(stage, &agent).await?;
    // First: the joins that follow leave the node's report as they please.
    let mut health = node.health(arguments.rounds).await?;
    health.extend(node.earlier_life().await?);
    health.extend(node.hang().await?);
    health.extend(node.readers(arguments.rounds, &stage::beside("libnvml_sim.so")?).await?);
    let (with, without) = joins(&mut node, arguments.rounds).await?;
    let mut named: Vec<Named> = Vec::new();
    for (fault, reason) in FAULTS {
        for round in 0..arguments.rounds.div_ceil(3) {
            output::progress(&format!("bench: {fault}, {round}"));
            named.push(node.with_fault(fault, reason).await?);
        }
    }
    let added = |of: fn(&Way) -> f64| {
        with.iter().zip(&without).map(|(ours, peer)| of(&ours.way) - of(peer)).collect()
    };
    let whole: Vec<f64> = with.iter().map(|sample| sample.way.ready).collect();
    let peers: Vec<f64> = without.iter().map(|way| way.ready).collect();
    let seconds = |of: fn(&Named) -> f64| named.iter().map(|n| of(n) / 1000.0).collect();
    let mut figures = vec![
        Figure::of("join: added by the agent", "ms", added(|way| way.ready)).within(150.0),
        Figure::of("join: added until the Node is there", "ms", added(|way| way.registered)),
        Figure::of("join: start to Node Ready", "ms", whole).beside(Some(Peer::of(PEER, peers))),
        Figure::of("join: peak memory", "MiB", with.iter().map(|sample| sample.rss).collect())
            .beside(nodeadm_memory(arguments.rounds)?)
            .within(16.0),
    ];
    let of = |field: fn(&Sample) -> f64| with.iter().map(field).collect();
    figures.push(Figure::of("join: gates before kubelet, less nodeadm", "ms", of(|s| s.gates)));
    figures.push(Figure::of("join: the agent's processor time", "ms", of(|s| s.cpu)));
    for (channel, samples) in [
        ("console", seconds(|named| named.console)),
        ("file", seconds(|named| named.file)),
        ("journal", seconds(|named| named.journal)),
    ] {
        figures.push(Figure::of(format!("fault to {channel}"), "s", samples).within(2.0));
    }
    figures.extend(health);
    Ok(figures)
}

/// Joins with the agent and without it, in turns: what changes on the machine falls on both.
async fn joins(node: &mut Node<'_>, rounds: u32) -> anyhow::Result<(Vec<Sample>, Vec<Way>)> {
    let (mut with, mut without): (Vec<Sample>, Vec<Way>) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (peer, ours) = if round % 2 == 0 {
            let peer = node.without_agent().await?;
            (peer, node.with_agent().await?)
        } else {
            let ours = node.with_agent().await?;
            (node.without_agent().await?, ours)
        };
        let phases: Vec<String> =
            ours.phases.iter().map(|(phase, ms)| format!("{phase} {ms}")).collect();
        output::progress(&format!(
            "bench: join {round}: {:.0} ms alone, {:.0} ms with the agent ({}), {:.1} MiB",
            peer.ready,
            ours.way.ready,
            phases.join(", "),
            ours.rss
        ));
        // The first round warms the caches of both.
        if round > 0 {
            without.push(peer);
            with.push(ours);
        }
    }
    Ok((with, without))
}

/// The real nodeadm's memory, where it was built: of `config check`, which writes nothing.
fn nodeadm_memory(rounds: u32) -> anyhow::Result<Option<Peer>> {
    let (Some(nodeadm), Some(python)) = (nodeadm(), std::env::var_os("LAB_PYTHON")) else {
        return Ok(None);
    };
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("node.yaml");
    std::fs::write(
        &path,
        "apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  cluster:\n    name: prod\n    \
         apiServerEndpoint: https://localhost\n    certificateAuthority: Y2E=\n    \
         cidr: 172.20.0.0/16\n",
    )?;
    let source = format!("file://{}", path.display());
    let arguments = ["config", "check", "-c", &source];
    let mut samples = Vec::new();
    for _ in 0..rounds {
        samples.push(program::run_once(Path::new(&python), &nodeadm, &arguments)?.0);
    }
    Ok(Some(Peer::of("nodeadm config check", samples)))
}

/// The real nodeadm in the cache of parts.
fn nodeadm() -> Option<PathBuf> {
    let home = std::env::var_os("HOME")?;
    let parts = std::fs::read_dir(Path::new(&home).join(".cache/rollcall-lab")).ok()?;
    let mut found: Vec<PathBuf> = parts
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("nodeadm-"))
        .map(|entry| entry.path().join("nodeadm"))
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    found.pop()
}

fn parts(has_nodeadm: bool) -> BTreeMap<&'static str, String> {
    let words = [
        ("agent", "real, the release build"),
        (
            "node",
            "process node: nodeadm, kubelet and systemctl are the lab's stand-ins, both sides",
        ),
        ("kubernetes", "API server stand-in"),
        ("gpus", "8, nvml-sim"),
        ("nodeadm config check", if has_nodeadm { "real" } else { "not built: not measured" }),
    ];
    words.into_iter().map(|(part, what)| (part, what.to_owned())).collect()
}

fn write(out: &Path, summary: &Summary) -> anyhow::Result<()> {
    if let Some(directory) = out.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let json = serde_json::to_string_pretty(summary)? + "\n";
    std::fs::write(out, json).with_context(|| format!("could not write `{}`", out.display()))
}
