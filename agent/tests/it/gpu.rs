//! The drivers phase through the agent's own helper process and a simulated driver's library.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent::gpu::checks::over_time::signs;
use agent::gpu::probe::{Helper, Outcome};
use agent::host::{Deadline, Root};
use agent::phases::drivers::{DriverFacts, Expected, after_join, gather_with, report, verdict};
use contract::{Finding, Verdict};
use nvml_sim::fault::Fault;
use nvml_sim::profile::{for_instance_type, instance_types};
use nvml_sim::state::{Faults, State};
use nvml_sim::{library, node_files};
use tempfile::TempDir;

/// A node's root with the simulated driver in it.
pub(crate) struct Node {
    root: TempDir,
}

impl Node {
    pub(crate) fn new(state: &State) -> Self {
        let node = Self { root: tempfile::tempdir().unwrap() };
        node.set(state);
        node
    }

    pub(crate) fn set(&self, state: &State) {
        library::install(&simulated_library(), self.path(), state).unwrap();
        node_files::sync(self.path(), state).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    async fn gather(&self, within: Duration) -> DriverFacts {
        let helper = Helper::at(env!("CARGO_BIN_EXE_rollcall-agent"));
        gather_with(&helper, &Root::new(self.path()), Deadline::within(within)).await
    }
}

/// Cargo builds both halves of nvml-sim in one go, the shared library beside this program.
fn simulated_library() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libnvml_sim.so")
}

pub(crate) fn h100s() -> State {
    for_instance_type("p5.48xlarge").unwrap()
}

fn of(instance_type: &str) -> Expected {
    Expected { instance_type: instance_type.into(), ..Expected::default() }
}

const LONG: Duration = Duration::from_secs(30);

async fn cause(state: &State) -> Finding {
    let facts = Node::new(state).gather(LONG).await;
    match verdict(&facts, &of("p5.48xlarge")) {
        Verdict::Fail(mut findings) => findings.swap_remove(0),
        other => panic!("{other:?}\n{facts:#?}"),
    }
}

#[tokio::test]
async fn every_simulated_instance_type_is_proven() {
    for instance_type in instance_types() {
        let state = for_instance_type(instance_type).unwrap();
        let facts = Node::new(&state).gather(LONG).await;
        let expected = of(instance_type);
        assert_eq!(verdict(&facts, &expected), Verdict::Pass, "{instance_type}: {facts:#?}");
        // What the watch looks at besides finds nothing either, on whatever a type has.
        assert_eq!(after_join(&facts, &expected), [], "{instance_type}: {facts:#?}");
        let signs = signs(&facts);
        let counted: Vec<_> = signs.counted.iter().filter(|one| one.total > 0).collect();
        assert!(counted.is_empty() && signs.stuck.is_empty(), "{instance_type}: {signs:#?}");
        assert_eq!(signs.slowed.len(), state.gpus.len(), "{instance_type}");
        let gpus = report(&facts, &expected);
        let count = u32::try_from(state.gpus.len()).unwrap();
        assert_eq!(
            (gpus.expected, gpus.pci, gpus.device_nodes, gpus.nvml),
            (Some(count), Some(count), Some(count), Some(count))
        );
    }
}

#[tokio::test]
async fn readings_are_those_of_the_driver() {
    let mut state = h100s();
    state.gpus[5].memory_used_mib = 2048;
    state.gpus[5].pcie.replays = 7;
    let facts = Node::new(&state).gather(LONG).await;
    let gpu = &facts.nvml.gpus[5];
    assert_eq!(
        (gpu.uuid.as_str(), gpu.pci.as_str()),
        (state.gpus[5].uuid.as_str(), "0000:a8:00.0")
    );
    let readings = &gpu.readings;
    assert_eq!(readings.memory.unwrap().used, 2048 << 20);
    assert_eq!(readings.pcie_replays, Some(7));
    assert_eq!(readings.memory_temperature, Some(40));
    assert_eq!(readings.recovery_action, Some(0));
    assert_eq!(readings.remapped_rows, Some(Default::default()));
    assert_eq!(readings.fabric.as_ref().map(|fabric| fabric.state), Some(3));
    assert_eq!(readings.nvlink_kib, Some((0, 0)));
    assert_eq!(readings.mig, Some(false));
}

#[tokio::test]
async fn what_only_the_watch_looks_at_is_read_of_every_generation() {
    // Before T.Limit, with it, and with the fifth generation's NVLinks.
    for (instance_type, has_nvlinks, counts_failures) in [
        ("g4dn.12xlarge", false, false),
        ("p4d.24xlarge", true, false),
        ("p5.48xlarge", true, false),
        ("p6-b200.48xlarge", true, true),
    ] {
        let mut state = for_instance_type(instance_type).unwrap();
        for fault in
            ["gpu-hot=1", "nvlink-errors=1", "nvlink-recovery-failed=1", "stuck-process=1:42"]
        {
            fault.parse::<Fault>().unwrap().apply(&mut state);
        }
        let facts = Node::new(&state).gather(LONG).await;
        let readings = |index: usize| &facts.nvml.gpus[index].readings;
        let margin = |index| readings(index).slowdown_margin.unwrap();
        assert!(margin(0) > 10 && margin(1) <= 3, "{instance_type}: {} {}", margin(0), margin(1));
        assert_eq!(readings(1).processes, [42], "{instance_type}");
        assert_eq!(facts.stuck.len(), 1, "{instance_type}");
        let errors = readings(1).nvlink_errors;
        assert_eq!(errors.is_some(), has_nvlinks, "{instance_type}: {errors:?}");
        let recoveries = errors.and_then(|errors| errors.recoveries);
        assert_eq!(recoveries, has_nvlinks.then_some(4), "{instance_type}: {errors:?}");
        let failed = errors.and_then(|errors| errors.failed_recoveries);
        assert_eq!(failed, counts_failures.then_some(1), "{instance_type}: {errors:?}");
        let named: Vec<_> =
            after_join(&facts, &of(instance_type)).into_iter().map(|found| found.reason).collect();
        assert_eq!(named, [contract::Reason::TemperatureNearLimit], "{instance_type}");
    }
}

#[tokio::test]
async fn a_mismatch_names_both_versions() {
    let mut state = h100s();
    Fault::DriverLibraryMismatch.apply(&mut state);
    let cause = cause(&state).await;
    assert_eq!(cause.reason.as_str(), "DriverLibraryMismatch");
    assert_eq!(cause.summary, "the kernel module is 580.82.07, the library is 580.95.05");
}

#[tokio::test]
async fn a_missing_gpu_is_missed_on_the_bus() {
    let mut state = h100s();
    Fault::GpuMissing(Some(6)).apply(&mut state);
    let cause = cause(&state).await;
    assert_eq!(cause.reason.as_str(), "GpuCountShort");
    assert_eq!(
        cause.summary,
        "7 of 8 GPUs: missing on the PCI bus (expected 8, PCI 7, device nodes 7, NVML 7)"
    );
}

#[tokio::test]
async fn a_lost_gpu_is_named_by_its_address() {
    let mut state = h100s();
    Fault::GpuLost(3).apply(&mut state);
    let cause = cause(&state).await;
    assert_eq!(cause.reason.as_str(), "GpuLost");
    assert_eq!(cause.summary, "7 of 8 GPUs work: GPU 3 at 0000:86:00.0 fallen off the bus");
}

#[tokio::test]
async fn a_driver_that_is_not_there_yet_is_waited_for() {
    let mut state = h100s();
    Fault::DriverNotLoaded.apply(&mut state);
    let node = Node::new(&state);
    let facts = node.gather(LONG).await;
    let Verdict::Wait(finding) = verdict(&facts, &of("p5.48xlarge")) else { panic!("{facts:#?}") };
    assert_eq!(finding.reason.as_str(), "DriverNotLoaded");
    node.set(&h100s());
    let facts = node.gather(LONG).await;
    assert_eq!(verdict(&facts, &of("p5.48xlarge")), Verdict::Pass);
}

#[tokio::test]
async fn a_library_that_is_none_is_named() {
    let node = Node::new(&h100s());
    let library = node.path().join("usr/lib64/libnvidia-ml.so.1");
    fs::remove_file(&library).unwrap();
    fs::write(&library, "not an ELF file").unwrap();
    let facts = node.gather(LONG).await;
    let Outcome::Failed(failure) = &facts.nvml.outcome else { panic!("{facts:#?}") };
    let failure = format!("{failure:?}");
    assert!(failure.contains("LibraryUnloadable"), "{failure}");
}

#[tokio::test]
async fn a_hang_is_given_up_and_names_its_call() {
    let mut state = h100s();
    state.faults = Faults { hang: vec!["nvmlDeviceGetPowerUsage".into()], ..Faults::default() };
    let node = Node::new(&state);
    let start = Instant::now();
    let facts = node.gather(Duration::from_secs(4)).await;
    assert!(start.elapsed() < Duration::from_secs(8), "the deadline was passed");
    let Outcome::Hung { asking, .. } = &facts.nvml.outcome else { panic!("{facts:#?}") };
    assert_eq!(asking, "GPU 0");

    Fault::DriverHang.apply(&mut state);
    node.set(&state);
    let facts = node.gather(Duration::from_secs(4)).await;
    let Outcome::Hung { asking, .. } = &facts.nvml.outcome else { panic!("{facts:#?}") };
    assert_eq!(asking, "nvmlInit");
}
