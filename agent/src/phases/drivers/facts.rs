//! What the node shows of its GPUs, gathered.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use crate::gpu::kernel::{self, Kernels};
use crate::gpu::module::{self, Module};
use crate::gpu::pci::{self, PciGpu};
use crate::gpu::probe::{Helper, NvmlFacts, Outcome};
use crate::gpu::sample::Failure;
use crate::gpu::{cdi, library};
use crate::host::systemd::{Systemd, UnitState};
use crate::host::{Deadline, Root, clock};

/// The units that bring the driver up, of both generations of EKS's AL2023 images.
const DRIVER_UNITS: [&str; 3] =
    ["nvidia-driver-resolve.service", "nvidia-setup.service", "nvidia-kmod-load.service"];
/// How long NVML may take before the join calls it a hang: eight GPUs without persistence are slow
/// to open.
const NVML_PATIENCE: Duration = Duration::from_secs(120);
/// What is kept of the deadline for everything after NVML.
const RESERVE: Duration = Duration::from_millis(1500);
/// How much of a failed unit's log is evidence.
const LOG_LINES: u32 = 5;

/// What the node shows of its GPUs.
#[derive(Clone, Debug, PartialEq)]
pub struct DriverFacts {
    /// The GPUs on the PCI bus; none when the bus cannot be read.
    pub pci: Option<Vec<PciGpu>>,
    /// The kernel module and its device nodes.
    pub module: Module,
    /// Version in the library's file name.
    pub library_version: Option<String>,
    /// What NVML says.
    pub nvml: NvmlFacts,
    /// The driver units that exist; asked for only when something is amiss.
    pub units: Vec<(&'static str, UnitState)>,
    /// The last lines of a failed driver unit.
    pub unit_log: Vec<String>,
    /// The kernels that the image has the module for; looked for only when it is not loaded.
    pub kernels: Kernels,
    /// What the CDI specification names and is not there; looked at only when the driver answers.
    pub stale_cdi: Option<String>,
    /// How long the node has been up, or been looked at, whichever is longer.
    pub up: Duration,
}

/// Gathers the facts, never later than the deadline.
pub async fn gather(root: &Root, deadline: Deadline) -> DriverFacts {
    gather_with(&Helper::default(), root, deadline).await
}

/// The same with a helper of one's own.
pub async fn gather_with(helper: &Helper, root: &Root, deadline: Deadline) -> DriverFacts {
    let pci = pci::gpus(root);
    let loaded = module::read(root).version.is_some();
    let nvml = if !loaded {
        // Opening the library would have it load the module behind the driver units' back.
        NvmlFacts::none(Outcome::NotAsked("the kernel module is not loaded"))
    } else if library::to_load(root).is_none() {
        let searched = library::searched();
        NvmlFacts::none(Outcome::Failed(Failure::LibraryMissing { searched }))
    } else {
        let given = deadline.remaining().saturating_sub(RESERVE).min(NVML_PATIENCE);
        helper.snapshot(root, Deadline::within(given)).await
    };
    let mut facts = DriverFacts {
        pci,
        // After NVML, which makes missing device nodes.
        module: module::read(root),
        library_version: library::version(root),
        nvml,
        units: Vec::new(),
        unit_log: Vec::new(),
        kernels: if loaded { Kernels::default() } else { kernel::read(root) },
        stale_cdi: if loaded { cdi::missing(root) } else { None },
        up: clock::uptime(root).unwrap_or_default().max(looked_for()),
    };
    if facts.is_amiss() {
        let systemd = Systemd::new(root.clone());
        // Without an answer in time the units stay unknown: the facts above stand alone.
        let asking = timeout_at(deadline.instant(), ask_units(&systemd));
        (facts.units, facts.unit_log) = asking.await.unwrap_or_default();
    }
    facts
}

impl DriverFacts {
    /// Whether the driver units have anything to explain.
    fn is_amiss(&self) -> bool {
        let answered = self.nvml.gpus.iter().filter(|gpu| gpu.error.is_none()).count();
        self.nvml.outcome != Outcome::Complete
            || self.pci.as_ref().is_some_and(|pci| pci.len() != answered)
            || self.module.device_nodes.len() < answered
    }
}

async fn ask_units(systemd: &Systemd) -> (Vec<(&'static str, UnitState)>, Vec<String>) {
    let [resolve, setup, load] = DRIVER_UNITS;
    let states = tokio::join!(systemd.show(resolve), systemd.show(setup), systemd.show(load));
    let states = [(resolve, states.0), (setup, states.1), (load, states.2)];
    let units: Vec<_> = states
        .into_iter()
        .filter_map(|(unit, state)| Some((unit, state.ok()?)))
        .filter(|(_, state)| state.exists())
        .collect();
    let log = match units.iter().find(|(_, state)| state.active == "failed") {
        Some((unit, _)) => systemd.tail(unit, LOG_LINES).await,
        None => Vec::new(),
    };
    (units, log)
}

/// How long this process has been looking: stands for the uptime where that cannot be read.
fn looked_for() -> Duration {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed()
}

/// A hash of what can be read without asking the driver. When it changes, proving again is worth
/// the while.
#[must_use]
pub fn fingerprint(root: &Root) -> u64 {
    let mut hasher = DefaultHasher::new();
    for gpu in pci::gpus(root).unwrap_or_default() {
        gpu.address.hash(&mut hasher);
    }
    let module = module::read(root);
    (module.version, module.device_nodes, module.driven).hash(&mut hasher);
    if let Some(path) = library::find(root) {
        let stat = std::fs::metadata(&path);
        let stat = stat.map(|file| (file.len(), file.mtime(), file.mtime_nsec(), file.ino())).ok();
        (path, stat).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(root: &Root, path: &str, text: &str) {
        let path = root.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_fingerprint_sees_what_a_repair_changes() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        let mut seen = vec![fingerprint(&root)];
        for (path, text) in [
            ("/sys/bus/pci/devices/0000:53:00.0/vendor", "0x10de\n"),
            ("/proc/driver/nvidia/version", "NVRM version: NVIDIA x  580.82.07  y\n"),
            ("/proc/driver/nvidia/version", "NVRM version: NVIDIA x  580.95.05  y\n"),
            ("/dev/nvidia0", ""),
            ("/usr/lib64/libnvidia-ml.so.1", "one"),
            ("/usr/lib64/libnvidia-ml.so.1", "another"),
        ] {
            write(&root, "/sys/bus/pci/devices/0000:53:00.0/class", "0x030200\n");
            write(&root, path, text);
            let now = fingerprint(&root);
            assert_eq!(now, fingerprint(&root));
            assert!(!seen.contains(&now), "{path}");
            seen.push(now);
        }
        write(&root, "/proc/uptime", "1 1\n");
        assert_eq!(seen.last(), Some(&fingerprint(&root)));
    }

    #[tokio::test]
    async fn without_a_module_the_library_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        write(&root, "/usr/lib64/libnvidia-ml.so.1", "no library at all");
        // A helper that would fail shows that it is not started.
        let helper = Helper::at("/no/such/program");
        let deadline = Deadline::within(Duration::from_secs(10));
        let facts = gather_with(&helper, &root, deadline).await;
        assert!(matches!(facts.nvml.outcome, Outcome::NotAsked(_)), "{facts:?}");

        write(&root, "/sys/module/nvidia/version", "580.95.05\n");
        fs::remove_file(root.path("/usr/lib64/libnvidia-ml.so.1")).unwrap();
        let facts = gather_with(&helper, &root, deadline).await;
        assert!(
            matches!(facts.nvml.outcome, Outcome::Failed(Failure::LibraryMissing { .. })),
            "{facts:?}"
        );
    }
}
