//! What the node shows of its GPUs, gathered.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use contract::offer::Devices;
use tokio::time::timeout_at;

use super::{Expected, verdict};
use crate::gpu::canary::{self, Canary};
use crate::gpu::checks::over_time::StuckProcess;
use crate::gpu::efa::{self, Efa};
use crate::gpu::kernel::{self, Kernels};
use crate::gpu::module::{self, Module};
use crate::gpu::pci::{self, PciGpu};
use crate::gpu::probe::{Helper, NvmlFacts, Outcome};
use crate::gpu::sample::{Failure, GpuSample};
use crate::gpu::xid::{self, Record};
use crate::gpu::{cdi, library, process};
use crate::host::systemd::{Systemd, UnitState};
use crate::host::{Deadline, Root, clock};

/// The units that bring the driver up, of both generations of EKS's AL2023 images.
const DRIVER_UNITS: [&str; 3] =
    ["nvidia-driver-resolve.service", "nvidia-setup.service", "nvidia-kmod-load.service"];
/// The daemons beside the driver.
const FABRIC_MANAGER: &str = "nvidia-fabricmanager.service";
const PERSISTENCED: &str = "nvidia-persistenced.service";
/// How long NVML may take before the join calls it a hang: eight GPUs without persistence are slow
/// to open.
const NVML_PATIENCE: Duration = Duration::from_secs(120);
/// What is kept of the deadline for everything after NVML.
const RESERVE: Duration = Duration::from_millis(1500);
/// How long systemd may take to say how the driver's daemons are; else that is unknown.
const SERVICES: Duration = Duration::from_secs(5);
/// How much of a failed unit's log is evidence.
const LOG_LINES: u32 = 5;

/// What the node shows of its GPUs.
#[derive(Clone, Debug, PartialEq)]
pub struct DriverFacts {
    /// The GPUs on the PCI bus; none when the bus cannot be read.
    pub pci: Option<Vec<PciGpu>>,
    /// The NVSwitches on the PCI bus.
    pub nvswitches: usize,
    /// The EFA adapters beside the GPUs.
    pub efa: Efa,
    /// The kernel module and its device nodes.
    pub module: Module,
    /// Version in the library's file name.
    pub library_version: Option<String>,
    /// What NVML says.
    pub nvml: NvmlFacts,
    /// What the driver has logged since the boot; only the join asks, the watch has its own account.
    pub xids: Vec<Record>,
    /// The daemons beside the driver.
    pub services: Services,
    /// The driver units that exist; asked for only when something is amiss.
    pub units: Vec<(&'static str, UnitState)>,
    /// The last lines of a failed driver unit.
    pub unit_log: Vec<String>,
    /// The kernels that the image has the module for; looked for only when it is not loaded.
    pub kernels: Kernels,
    /// What the CDI specification names and is not there, or lacks; looked at only when the module is
    /// loaded.
    pub stale_cdi: Option<String>,
    /// What the CUDA canary has come to.
    pub canary: Canary,
    /// Programs on the GPUs that neither run nor are gone.
    pub stuck: Vec<StuckProcess>,
    /// How long the node has been up, or been looked at, whichever is longer.
    pub up: Duration,
}

/// The daemons beside the driver; none where systemd has not said how one is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// nvidia-fabricmanager.
    pub fabric_manager: Option<UnitState>,
    /// nvidia-persistenced.
    pub persistenced: Option<UnitState>,
}

impl Services {
    /// Asks systemd, for a few seconds at most.
    pub async fn ask(systemd: &Systemd, deadline: Deadline) -> Self {
        let limit = deadline.at_most(SERVICES);
        let show = async |unit| timeout_at(limit.instant(), systemd.show(unit)).await.ok()?.ok();
        let (fabric_manager, persistenced) = tokio::join!(show(FABRIC_MANAGER), show(PERSISTENCED));
        // A double of systemctl, or one that failed, says nothing at all.
        let said = |state: Option<UnitState>| state.filter(|state| !state.load.is_empty());
        Self { fabric_manager: said(fabric_manager), persistenced: said(persistenced) }
    }
}

impl Default for DriverFacts {
    /// Nothing has been looked at.
    fn default() -> Self {
        Self {
            pci: None,
            nvswitches: 0,
            efa: Efa::default(),
            module: Module::default(),
            library_version: None,
            nvml: NvmlFacts::none(Outcome::NotAsked("nobody has asked yet")),
            xids: Vec::new(),
            services: Services::default(),
            units: Vec::new(),
            unit_log: Vec::new(),
            kernels: Kernels::default(),
            stale_cdi: None,
            canary: Canary::NotAsked,
            stuck: Vec::new(),
            up: Duration::ZERO,
        }
    }
}

impl DriverFacts {
    /// What files show, beside what NVML has said: no call here hangs. systemd has not been asked.
    #[must_use]
    pub fn look(root: &Root, nvml: NvmlFacts) -> Self {
        let module = module::read(root);
        let is_loaded = module.version.is_some();
        let minors: Vec<u32> = nvml.gpus.iter().filter_map(|gpu| gpu.minor).collect();
        Self {
            pci: pci::gpus(root),
            nvswitches: pci::nvswitches(root),
            efa: efa::read(root),
            library_version: library::version(root),
            stuck: process::stuck(root, &nvml.gpus),
            nvml,
            xids: Vec::new(),
            services: Services::default(),
            units: Vec::new(),
            unit_log: Vec::new(),
            kernels: if is_loaded { Kernels::default() } else { kernel::read(root) },
            stale_cdi: if is_loaded { cdi::stale(root, &minors) } else { None },
            canary: Canary::NotAsked,
            up: clock::uptime(root).unwrap_or_default().max(looked_for()),
            module,
        }
    }

    /// Has the GPUs compute, where nothing else is found wrong with them. CUDA counts the parts of divided
    /// ones, and one of these at a time: there it shows nothing.
    pub async fn ask_canary(&mut self, root: &Root, expected: &Expected, deadline: Deadline) {
        let is_divided = self.devices().divided > 0;
        if !is_divided && verdict(self, expected).is_open() {
            let left = deadline.remaining().saturating_sub(RESERVE);
            self.canary = canary::ask(root, Deadline::within(left)).await;
        }
    }

    /// The GPUs that answer, as they can be offered to pods.
    #[must_use]
    pub fn devices(&self) -> Devices {
        let mut devices = Devices::default();
        for gpu in self.nvml.gpus.iter().filter(|gpu| gpu.error.is_none()) {
            devices.gpus += 1;
            if let Some(parts) = gpu.parts() {
                devices.divided += 1;
                devices.parts += parts;
            }
        }
        devices
    }

    /// Where a GPU is. One that does not answer is told by its turn: NVML counts in bus order.
    #[must_use]
    pub fn address(&self, gpu: &GpuSample) -> Option<String> {
        if !gpu.pci.is_empty() {
            return Some(gpu.pci.clone());
        }
        let pci = self.pci.as_ref()?;
        let counted = self.nvml.driver.as_ref()?.count as usize;
        (counted == pci.len())
            .then(|| pci.get(gpu.index as usize).map(|gpu| gpu.address.clone()))?
    }
}

/// Gathers the facts, never later than the deadline.
pub async fn gather(root: &Root, deadline: Deadline) -> DriverFacts {
    gather_with(&Helper::default(), root, deadline).await
}

/// The same with a helper of one's own.
pub async fn gather_with(helper: &Helper, root: &Root, deadline: Deadline) -> DriverFacts {
    let systemd = Systemd::new(root.clone());
    let (nvml, services) =
        tokio::join!(ask_nvml(helper, root, deadline), Services::ask(&systemd, deadline));
    // After NVML, which makes missing device nodes.
    let xids = xid::since_boot(root);
    let mut facts = DriverFacts { services, xids, ..DriverFacts::look(root, nvml) };
    if facts.is_amiss() {
        // Without an answer in time the units stay unknown: the facts above stand alone.
        let asking = timeout_at(deadline.instant(), ask_units(&systemd));
        (facts.units, facts.unit_log) = asking.await.unwrap_or_default();
    }
    facts
}

async fn ask_nvml(helper: &Helper, root: &Root, deadline: Deadline) -> NvmlFacts {
    if module::read(root).version.is_none() {
        // Opening the library would have it load the module behind the driver units' back.
        return NvmlFacts::none(Outcome::NotAsked("the kernel module is not loaded"));
    }
    if library::to_load(root).is_none() {
        let searched = library::searched();
        return NvmlFacts::none(Outcome::Failed(Failure::LibraryMissing { searched }));
    }
    let given = deadline.remaining().saturating_sub(RESERVE).min(NVML_PATIENCE);
    helper.snapshot(root, Deadline::within(given)).await
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
