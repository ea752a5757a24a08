//! Health after the join: how soon the Node's condition names what has happened to a GPU, and how soon
//! it takes that back.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use contract::names::{CONDITION_ACCELERATED_HARDWARE, UNIT_WATCH};
use tokio::time::sleep;

use super::Figure;
use super::join::Node;
use crate::corpus::metrics;
use crate::systemctl_double::state::Store;
use crate::systemctl_double::units;

/// How long a condition may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks: the error of a sample.
const LOOK: Duration = Duration::from_millis(25);
/// XIDs that are fatal, each once on a GPU of its own.
const XIDS: [u32; 6] = [48, 62, 95, 140, 109, 143];
/// What befalls the GPUs, with the reason that must be named and the metric that is 0 meanwhile. Each twice at
/// most: a third time within an hour is a flapping, which is held on purpose.
const FAULTS: [(&str, &str, &str); 4] = [
    ("gpu-lost=3", "GpuLost", "rollcall_gpu_up{gpu=\"3\""),
    ("gpu-missing=5", "GpuCountShort", "rollcall_gpu_up{gpu=\"5\""),
    ("driver-hang", "DriverHang", "rollcall_driver_up"),
    ("driver-not-loaded", "DriverNotLoaded", "rollcall_driver_up"),
];

/// A daemon that dies beside GPUs that all answer.
const DAEMON: (&str, &str) = ("unit-fails=nvidia-fabricmanager", "FabricManagerNotRunning");

/// How long it takes, in seconds, until a metric of a node has this value.
async fn shows(root: &Path, metric: &str, value: &str) -> anyhow::Result<f64> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let text = metrics::scrape(root).await?;
        let mut lines = text.lines().filter(|line| line.starts_with(metric));
        if lines.any(|line| line.rsplit(' ').next() == Some(value)) {
            return Ok(start.elapsed().as_secs_f64());
        }
        sleep(LOOK).await;
    }
    bail!("{metric} does not become {value}")
}

/// What a process holds in memory, in MiB.
fn resident(pid: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib / 1024.0)
}

impl Node<'_> {
    /// Breaks the node's GPUs, one after the other, and measures what its condition says.
    ///
    /// # Errors
    /// When the condition does not follow.
    pub async fn health(&self, rounds: u32) -> anyhow::Result<Vec<Figure>> {
        self.until("True", "").await?;
        let (mut logged, mut over) = (Vec::new(), Vec::new());
        for (gpu, code) in (0_u32..).zip(XIDS).take(rounds.max(1) as usize) {
            self.log_xid(gpu, code)?;
            logged.push(self.until("False", &format!("XID {code} ")).await?);
            over.push(self.until("True", "").await?);
        }
        let (mut seen, mut cleared) = (Vec::new(), Vec::new());
        let (mut goes, mut comes) = (Vec::new(), Vec::new());
        for (fault, reason, metric) in FAULTS {
            // That of the whole library comes once more, under [`super::hang`].
            let most = if fault == super::hang::FAULT { 1 } else { 2 };
            for _ in 0..rounds.clamp(1, most) {
                self.stage.fault(&self.case, fault).await?;
                let (said, shown) =
                    tokio::join!(self.until("False", reason), shows(&self.root, metric, "0"));
                seen.push(said?);
                self.stage.lift(&self.case, fault).await?;
                let (said, back) =
                    tokio::join!(self.until("True", ""), shows(&self.root, metric, "1"));
                cleared.push(said?);
                // A hang is waited for, and a GPU that leaves the bus takes its metrics with it.
                if ["gpu-lost=3", "driver-not-loaded"].contains(&fault) {
                    goes.push(shown?);
                    comes.push(back?);
                }
            }
        }
        let (died, back) = self.comes_and_goes(DAEMON).await?;
        let mut figures = vec![
            Figure::of("health: lost GPU, or driver that goes, to metric", "s", goes).within(5.0),
            Figure::of("health: its return to metric", "s", comes).within(5.0),
            Figure::of("health: XID in the kernel log to condition", "s", logged).within(2.0),
            Figure::of("health: XID that is over to condition", "s", over).within(15.0),
            Figure::of("health: lost, missing, hung or unloaded to condition", "s", seen)
                .within(15.0),
            Figure::of("health: repair to condition", "s", cleared).within(15.0),
            Figure::of("health: dead fabric manager to condition", "s", vec![died]).within(15.0),
            Figure::of("health: its return to condition", "s", vec![back]).within(15.0),
        ];
        figures.extend(self.memory()?);
        Ok(figures)
    }

    /// What the watch and its helper hold in memory.
    fn memory(&self) -> anyhow::Result<[Figure; 2]> {
        let unit = units::find(&self.root, UNIT_WATCH).context("the node has no watch")?;
        let watch = Store::of(&self.root).load(unit).exec_main_pid;
        let children = fs::read_to_string(format!("/proc/{watch}/task/{watch}/children"))
            .context("could not read the watch's children")?;
        let helpers = children.split_whitespace().filter_map(resident).collect();
        let own = resident(&watch.to_string()).context("the watch does not run")?;
        Ok([
            Figure::of("health: memory of the watch", "MiB", vec![own]),
            Figure::of("health: memory of its helper", "MiB", helpers),
        ])
    }

    /// How long a fault takes to be in the condition, and its repair.
    async fn comes_and_goes(&self, (fault, reason): (&str, &str)) -> anyhow::Result<(f64, f64)> {
        self.stage.fault(&self.case, fault).await?;
        let seen = self.until("False", reason).await?;
        self.stage.lift(&self.case, fault).await?;
        Ok((seen, self.until("True", "").await?))
    }

    /// Has the driver log an XID, as the kernel log has it.
    fn log_xid(&self, gpu: u32, code: u32) -> anyhow::Result<()> {
        let state = nvml_sim::State::read(&self.root)?;
        let pci = &state.gpu(gpu).context("there is no such GPU")?.pci;
        let address = pci.trim_end_matches(".0");
        let text = format!(
            "4,{},{}000000,-;NVRM: Xid (PCI:{address}): {code}, pid=7, name=bench, of the bench\n",
            1000 + code,
            1000 + code
        );
        let mut log =
            OpenOptions::new().append(true).create(true).open(self.root.join("dev/kmsg"))?;
        Ok(log.write_all(text.as_bytes())?)
    }

    /// How long it takes, in seconds, until the condition has this status and says this.
    pub(super) async fn until(&self, status: &str, says: &str) -> anyhow::Result<f64> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(node) = self.stage.node(&self.name).await
                && let Some(conditions) = node["status"]["conditions"].as_array()
                && conditions.iter().any(|one| {
                    one["type"] == CONDITION_ACCELERATED_HARDWARE
                        && one["status"] == status
                        && one["message"].as_str().is_some_and(|text| text.contains(says))
                })
            {
                return Ok(start.elapsed().as_secs_f64());
            }
            sleep(LOOK).await;
        }
        bail!("the condition of `{}` does not become {status} for {says}", self.name)
    }
}
