//! One GPU of eight is lost, or answers nothing: how many of the others each reader still shows, and how
//! long that takes. The node's metrics beside nvitop and NVIDIA's own nvidia-smi, where `make
//! gpu-readers` has got them; both sides on the same simulated GPUs, in one run.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nvml_sim::{State, library, node_files};
use tokio::process::Command;

use super::Figure;
use super::join::Node;
use super::summary::Peer;
use crate::corpus::metrics;
use crate::output;

/// What is wrong with one GPU of the node.
const FAULTS: [(&str, &str); 2] = [("gpu-lost=3", "GpuLost"), ("gpu-hang=3", "DriverHang")];
/// How long a reader may take: one that the driver holds does not end.
const PATIENCE: Duration = Duration::from_secs(10);

impl Node<'_> {
    /// Measures all readers under each fault; the last thing to do with the node's condition.
    ///
    /// # Errors
    /// When the node itself does not answer.
    pub async fn readers(&self, rounds: u32, built: &Path) -> anyhow::Result<Vec<Figure>> {
        let mut figures = Vec::new();
        let readers = found();
        if readers.is_empty() {
            output::progress("bench: no other readers of GPUs: make gpu-readers gets them");
        }
        for (fault, reason) in FAULTS {
            self.stage.fault(&self.case, fault).await?;
            self.until("False", reason).await?;
            let state = State::read(&self.root)?;
            let (mut hidden, mut took) = (Vec::new(), Vec::new());
            for _ in 0..rounds.max(1) {
                let began = Instant::now();
                let text = metrics::scrape(&self.root).await?;
                took.push(began.elapsed().as_secs_f64() * 1000.0);
                hidden.push(missing(&state, |uuid| {
                    let of = format!("UUID=\"{uuid}\"");
                    let mut lines = text.lines();
                    lines
                        .any(|line| line.starts_with("DCGM_FI_DEV_GPU_TEMP{") && line.contains(&of))
                }));
            }
            let mut peers = Vec::new();
            for reader in &readers {
                peers.push(reader.measure(&state, &self.root, built).await?);
            }
            // That it is over may be held back by now: it comes the third time.
            self.stage.lift(&self.case, fault).await?;
            figures.extend(figures_of(fault, hidden, took, peers));
        }
        Ok(figures)
    }
}

/// Of each peer its own figures: a figure has one at most.
fn figures_of(fault: &str, hidden: Vec<f64>, took: Vec<f64>, peers: Vec<Seen>) -> Vec<Figure> {
    let name = |what: &str| format!("readers, {fault}: {what}");
    let mut peers = peers.into_iter();
    let of = |peer: Option<Seen>| {
        let (others, time) = match peer {
            Some(seen) => (
                Some(Peer::of(&seen.reader, vec![seen.hidden])),
                Some(Peer::of(&seen.reader, vec![seen.milliseconds])),
            ),
            None => (None, None),
        };
        [
            Figure::of(name("others that are not shown"), "GPUs", hidden.clone())
                .beside(others)
                .within(0.0),
            Figure::of(name("time to show them"), "ms", took.clone()).beside(time).within(50.0),
        ]
    };
    let mut figures = of(peers.next()).to_vec();
    for peer in peers {
        figures.extend(of(Some(peer)));
    }
    figures
}

/// The GPUs without a fault that a reader does not show.
fn missing(state: &State, shows: impl Fn(&str) -> bool) -> f64 {
    let well = state.gpus.iter().filter(|gpu| gpu.fault.is_none());
    well.filter(|gpu| !shows(&gpu.uuid)).count() as f64
}

/// What another reader has shown.
struct Seen {
    reader: String,
    hidden: f64,
    milliseconds: f64,
}

/// A program of somebody else's.
struct Reader {
    name: &'static str,
    program: PathBuf,
    arguments: &'static [&'static str],
    /// The version of the library that it wants.
    version: Option<String>,
}

/// Those that are in the cache.
fn found() -> Vec<Reader> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(Path::new(&std::env::var_os("HOME")?).join(".cache"));
    let Some(cache) = cache.or_else(home) else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir(cache.join("rollcall-lab")) else { return Vec::new() };
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("gpu-readers-")) && path.is_dir()
    };
    let Some(directory) = entries.flatten().map(|entry| entry.path()).find(is_ours) else {
        return Vec::new();
    };
    let version = std::fs::read_to_string(directory.join("nvidia-smi/version")).ok();
    let readers = [
        Reader {
            name: "nvidia-smi",
            program: directory.join("nvidia-smi/nvidia-smi"),
            arguments: &["--query-gpu=uuid,temperature.gpu", "--format=csv,noheader"],
            version: version.map(|version| version.trim().to_owned()),
        },
        Reader {
            name: "nvitop",
            program: directory.join("venv/bin/python"),
            arguments: &["-m", "nvitop", "--once"],
            version: None,
        },
    ];
    readers.into_iter().filter(|reader| reader.program.exists()).collect()
}

impl Reader {
    /// Runs it once on the node's GPUs as they are, below a root of its own with its own version.
    async fn measure(&self, state: &State, root: &Path, built: &Path) -> anyhow::Result<Seen> {
        let own = tempfile::tempdir()?;
        let (mut state, mut root) = (state.clone(), root.to_owned());
        if let Some(version) = &self.version {
            nvml_sim::fault::Fault::DriverVersion(version.clone()).apply(&mut state);
            library::install(built, own.path(), &state)?;
            node_files::sync(own.path(), &state)?;
            own.path().clone_into(&mut root);
        }
        let began = Instant::now();
        let ended = Command::new(&self.program)
            .args(self.arguments)
            .env("LD_LIBRARY_PATH", root.join("usr/lib64"))
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output();
        // One that does not end shows nothing.
        let printed = match tokio::time::timeout(PATIENCE, ended).await {
            Ok(ended) => ended.with_context(|| format!("could not run {}", self.name))?.stdout,
            Err(_) => Vec::new(),
        };
        let milliseconds = began.elapsed().as_secs_f64() * 1000.0;
        let printed = String::from_utf8_lossy(&printed).into_owned();
        let address = |uuid: &str| {
            let gpu = state.gpus.iter().find(|gpu| gpu.uuid == uuid);
            gpu.map_or_else(String::new, |gpu| format!("0000{}", gpu.pci.to_ascii_uppercase()))
        };
        // nvitop prints addresses, nvidia-smi what it was asked for.
        let hidden =
            missing(&state, |uuid| printed.contains(uuid) || printed.contains(&address(uuid)));
        Ok(Seen { reader: self.name.to_owned(), hidden, milliseconds })
    }
}
