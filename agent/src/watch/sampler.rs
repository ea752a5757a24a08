//! Keeps a helper process that samples the GPUs every few seconds, and the last that each said.
//!
//! Each second it looks at the files that a driver's coming, going or reloading changes, and at the
//! join's report. The helper is started anew when those files change, when it dies, and when it
//! does not answer in time; while helpers hang that cannot be killed, the wait for the next grows.

use std::sync::Arc;
use std::time::Duration;

use contract::agent_config::{ExpectedGpus, WatchSettings};
use contract::join_report::{PhaseReport, PhaseState};
use contract::{JoinReport, Phase, names};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{LOOK, follow, join_report, reset};
use crate::gpu::efa::{self, Efa};
use crate::gpu::kernel::Kernels;
use crate::gpu::library;
use crate::gpu::module;
use crate::gpu::pci::PciGpu;
use crate::gpu::probe::{Helper, NvmlFacts, Outcome, Round, Running};
use crate::gpu::sample::{Failure, Line};
use crate::host::{Root, files};
use crate::metrics::snapshot::{Snapshot, Trouble, merge};
use crate::phases::drivers::{self, DriverFacts, Expected, Services, fingerprint};

/// The rhythm of the sampling.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two rounds.
    pub interval: Duration,
    /// How long a call may take before it is a hang.
    pub patience: Duration,
    /// The longest wait between two helpers, while some hang that cannot be killed.
    pub backoff: Duration,
}

/// What the sampler is told and tells beside its observations.
#[derive(Debug)]
pub(super) struct Lines {
    /// Somebody wants a round now.
    pub(super) look_again: Arc<Notify>,
    /// XIDs that NVML tells of.
    pub(super) xids: mpsc::Sender<NvmlXid>,
}

/// An XID that NVML tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvmlXid {
    /// PCI address of the GPU.
    pub pci: String,
    /// The code.
    pub code: u32,
}

/// Helpers that may hang at once without dying, before we wait for one of them.
const STUCK_MAX: usize = 2;

impl Default for Timing {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(4),
            patience: Duration::from_secs(10),
            backoff: Duration::from_secs(60),
        }
    }
}

/// What the watch knows of the node.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// For the metrics.
    pub snapshot: Arc<Snapshot>,
    /// For the verdict: as the join's drivers phase sees it. None before the first look.
    pub facts: Option<DriverFacts>,
    /// What the node should have. None while no join report says which instance it is.
    pub expected: Option<Expected>,
    /// How many rounds there have been.
    pub round: u64,
    /// Why we cannot ask, when that is no fault of the driver.
    pub blind: Option<String>,
    /// Whether NVML tells of XIDs.
    pub listens: bool,
}

/// Samples until the receivers are gone.
pub(super) async fn run(
    root: Root,
    helper: Helper,
    timing: Timing,
    lines: Lines,
    publish: watch::Sender<Arc<Observed>>,
) {
    let (asked, services) = watch::channel(Services::default());
    tokio::spawn(follow::services(root.clone(), timing.interval, asked));
    let (counted, efa) = watch::channel(efa::Errors::default());
    tokio::spawn(follow::efa_errors(root.clone(), timing.interval, counted));
    let state = State::default();
    let mut sampler = Sampler { root, helper, timing, lines, publish, services, efa, state };
    while !sampler.publish.is_closed() {
        sampler.session().await;
    }
}

struct Sampler {
    root: Root,
    helper: Helper,
    timing: Timing,
    lines: Lines,
    publish: watch::Sender<Arc<Observed>>,
    services: watch::Receiver<Services>,
    efa: watch::Receiver<efa::Errors>,
    state: State,
}

/// What comes after a helper's end.
enum Next {
    /// The next helper.
    AtOnce,
    /// The next helper, in a while.
    Soon,
    /// The driver hung.
    Hung,
}

#[derive(Default)]
struct State {
    snapshot: Snapshot,
    nvml: Option<NvmlFacts>,
    round: u64,
    blind: Option<String>,
    listens: bool,
    hangs: u32,
    /// Helpers that were killed and hang in the kernel.
    stuck: Vec<Running>,
}

impl Sampler {
    /// One helper's life, or one wait for something to ask.
    async fn session(&mut self) {
        let print = fingerprint(&self.root);
        self.state.stuck.retain_mut(|helper| !helper.is_gone());
        if reset::is_under_way(&self.root) {
            // A GPU that somebody has open is not reset. The last samples stand meanwhile.
            sleep_until(Instant::now() + LOOK).await;
            return self.publish();
        }
        match self.why_not_ask() {
            Some(outcome) => {
                self.take(NvmlFacts::none(outcome));
                // Round after round, as with a helper: one sighting alone moves no condition.
                self.wait_for_change(print, self.timing.interval).await;
            }
            None => match self.helper.start(&self.root, Some(self.timing.interval)) {
                Ok(mut running) => {
                    let next = self.listen(&mut running, print).await;
                    let died = self.end(running).await;
                    match next {
                        Next::AtOnce => {}
                        Next::Soon => self.wait_for_change(print, self.timing.interval).await,
                        Next::Hung => self.wait_after_hang(print, died).await,
                    }
                }
                Err(error) => {
                    let why = format!("the helper that asks NVML cannot be started: {error}");
                    tracing::warn!(%error, "the helper that asks NVML cannot be started");
                    self.state.blind = Some(why);
                    self.publish();
                    self.wait_for_change(print, self.timing.interval).await;
                }
            },
        }
    }

    /// Why there is nothing to ask NVML; none when there is.
    fn why_not_ask(&self) -> Option<Outcome> {
        let report = join_report(&self.root);
        let settings = settings(&self.root);
        let expected = report.map(|report| expected_of(&report, &settings));
        if expected.as_ref().and_then(drivers::skipped).is_some() {
            return Some(Outcome::NotAsked("the instance has no GPUs"));
        }
        if module::read(&self.root).version.is_none() {
            return Some(Outcome::NotAsked("the kernel module is not loaded"));
        }
        if library::to_load(&self.root).is_none() {
            let searched = library::searched();
            return Some(Outcome::Failed(Failure::LibraryMissing { searched }));
        }
        None
    }

    /// Takes the helper's rounds until it has to be replaced.
    async fn listen(&mut self, running: &mut Running, print: u64) -> Next {
        let mut round = Round::default();
        let mut heard = Instant::now();
        // The wait between two rounds is the helper's own and no hang.
        let mut resting = Duration::ZERO;
        loop {
            let look = Instant::now() + LOOK;
            let line = tokio::select! {
                line = timeout_at(look, running.next_line()) => line,
                () = self.lines.look_again.notified() => {
                    running.ask_now().await;
                    continue;
                }
            };
            match line {
                Ok(Ok(Some(Line::Xid { pci, code }))) => {
                    heard = Instant::now();
                    // One that nobody takes is in the kernel log, too.
                    let _ = self.lines.xids.try_send(NvmlXid { pci, code });
                }
                Ok(Ok(Some(Line::Listening { to_events }))) => {
                    heard = Instant::now();
                    self.state.listens = to_events;
                }
                Ok(Ok(Some(line))) => {
                    heard = Instant::now();
                    resting = Duration::ZERO;
                    let Some(facts) = round.take(line) else { continue };
                    let complete = facts.outcome == Outcome::Complete;
                    self.take(facts);
                    if !complete {
                        return Next::Soon;
                    }
                    self.state.hangs = 0;
                    resting = self.timing.interval;
                }
                Ok(ended) => {
                    let died = running.why_ended(ended.err()).await;
                    let asking = round.asking().to_owned();
                    let text = format!("it {died} while asking for {asking}");
                    self.take(round.end(Outcome::HelperFailed(text)));
                    return Next::Soon;
                }
                Err(_) if heard.elapsed() >= self.timing.patience + resting => {
                    let after = heard.elapsed() - resting;
                    let asking = round.asking().to_owned();
                    tracing::warn!(asking, seconds = after.as_secs(), "the driver does not answer");
                    self.take(round.end(Outcome::Hung { asking, after }));
                    return Next::Hung;
                }
                Err(_) => {
                    self.publish();
                    if fingerprint(&self.root) != print
                        || self.publish.is_closed()
                        || reset::is_under_way(&self.root)
                    {
                        return Next::AtOnce;
                    }
                }
            }
        }
    }

    /// A helper that died costs nothing, and the next asks soon. One that does not is waited for, longer
    /// each time: its end is the first sign of a driver that answers again.
    async fn wait_after_hang(&mut self, print: u64, died: bool) {
        self.state.hangs = if died { 0 } else { self.state.hangs.saturating_add(1) };
        let wait = self.timing.interval * 2_u32.saturating_pow(self.state.hangs.min(8));
        self.wait_for_change(print, wait.min(self.timing.backoff)).await;
    }

    /// Ends a helper, or keeps in mind that it hangs. Whether it died.
    async fn end(&mut self, mut running: Running) -> bool {
        let died = running.stop().await;
        if !died {
            self.state.stuck.push(running);
        }
        died
    }

    /// Waits until the driver's files change, there is something to ask where there was nothing, a helper
    /// that hung dies, or for `at_most`. Goes on publishing.
    async fn wait_for_change(&mut self, print: u64, at_most: Duration) {
        let start = Instant::now();
        let is_over = |state: &State| state.stuck.len() < STUCK_MAX && start.elapsed() >= at_most;
        let had_nothing_to_ask = self.why_not_ask().is_some();
        let stuck = self.state.stuck.len();
        while !self.publish.is_closed()
            && fingerprint(&self.root) == print
            && self.state.stuck.len() >= stuck
            && !is_over(&self.state)
        {
            let left = at_most.saturating_sub(start.elapsed());
            let wake = Instant::now() + left.clamp(Duration::from_millis(10), LOOK);
            tokio::select! {
                () = sleep_until(wake) => {}
                () = self.lines.look_again.notified() => {
                    if self.state.stuck.is_empty() {
                        return;
                    }
                }
            }
            self.state.stuck.retain_mut(|helper| !helper.is_gone());
            self.publish();
            if had_nothing_to_ask && self.why_not_ask().is_none() {
                return;
            }
        }
    }

    /// Takes a round in, whole or not.
    fn take(&mut self, nvml: NvmlFacts) {
        let snapshot = &mut self.state.snapshot;
        snapshot.gpus = merge(&snapshot.gpus, &nvml, Instant::now());
        snapshot.driver_up = nvml.outcome == Outcome::Complete;
        if nvml.driver.is_some() {
            snapshot.driver.clone_from(&nvml.driver);
        }
        self.state.nvml = Some(nvml);
        self.state.round += 1;
        self.state.blind = None;
        self.publish();
    }

    fn publish(&mut self) {
        let report = join_report(&self.root);
        let settings = settings(&self.root);
        let expected = report.as_ref().map(|report| expected_of(report, &settings));
        let facts = self.state.nvml.clone().map(|nvml| {
            let seen = DriverFacts::look(&self.root, nvml);
            DriverFacts {
                // For the join, which looks before anything runs.
                kernels: Kernels::default(),
                services: self.services.borrow().clone(),
                efa: Efa { errors: self.efa.borrow().clone(), ..seen.efa },
                // Long enough that nothing is excused by a start that is still under way.
                up: Duration::MAX,
                ..seen
            }
        });
        let snapshot = &mut self.state.snapshot;
        if let Some(report) = report {
            snapshot.hostname.clone_from(&report.instance.name);
            snapshot.expected = report.gpus.as_ref().and_then(|gpus| gpus.expected);
            snapshot.join = Some(report);
        }
        snapshot.gpus.retain(|seen| !is_ghost(seen));
        if let Some(facts) = &facts {
            let errors = |gpu: &PciGpu| Some((gpu.address.clone(), gpu.errors?));
            snapshot.pci_errors = facts.pci.iter().flatten().filter_map(errors).collect();
            snapshot.efa_errors.clone_from(&facts.efa.errors);
        }
        let snapshot = Arc::new(snapshot.clone());
        let (round, listens) = (self.state.round, self.state.listens);
        let blind = self.state.blind.clone();
        let observed = Observed { snapshot, facts, expected, round, blind, listens };
        self.publish.send_replace(Arc::new(observed));
    }
}

/// A GPU that never answered and is not there any more has nothing to show.
fn is_ghost(seen: &crate::metrics::snapshot::SeenGpu) -> bool {
    seen.sample.uuid.is_empty() && matches!(seen.trouble, Some(Trouble::Missing | Trouble::Unasked))
}

/// What the node should have: what the configuration says, else what the join found.
fn expected_of(report: &JoinReport, settings: &WatchSettings) -> Expected {
    let skipped =
        |one: &PhaseReport| one.phase == Phase::Drivers && one.state == PhaseState::Skipped;
    let none = report.phases.iter().any(skipped).then_some(0);
    let count = none.or_else(|| report.gpus.as_ref().and_then(|gpus| gpus.expected));
    let found = count.map(|count| ExpectedGpus { count, model: None, memory_mib: None });
    Expected {
        instance_type: report.instance.instance_type.clone(),
        gpus: settings.gpus.clone().or(found),
        mig_devices: settings.mig_devices,
        efa_devices: settings.efa_devices,
        min_driver: settings.min_driver.clone(),
        peermem: settings.peermem,
    }
}

/// What the join has handed over of the configuration; nothing before it has.
pub(super) fn settings(root: &Root) -> WatchSettings {
    let bytes = files::read(&root.path(names::WATCH_SETTINGS_PATH)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;
    use crate::gpu::sample::{Driver, GpuSample};

    /// A node with a module and a library, and a helper that says what a shell script says.
    struct Node {
        directory: tempfile::TempDir,
    }

    impl Node {
        fn new() -> Self {
            let node = Self { directory: tempfile::tempdir().unwrap() };
            node.write("sys/module/nvidia/version", "580.95.05\n");
            node.write("usr/lib64/libnvidia-ml.so.1", "");
            node
        }

        fn path(&self) -> &Path {
            self.directory.path()
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn helper(&self, script: &str) -> Helper {
            self.write("helper", &format!("#!/bin/sh\n{script}\n"));
            let path = self.path().join("helper");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            Helper::at(path)
        }

        fn start(&self, script: &str) -> watch::Receiver<Arc<Observed>> {
            let (publish, latest) = watch::channel(Arc::default());
            let lines = Lines { look_again: Arc::default(), xids: mpsc::channel(8).0 };
            let timing = Timing {
                interval: Duration::from_millis(200),
                patience: Duration::from_millis(1500),
                backoff: Duration::from_millis(200),
            };
            let root = Root::new(self.path());
            tokio::spawn(run(root, self.helper(script), timing, lines, publish));
            latest
        }
    }

    async fn until(
        latest: &mut watch::Receiver<Arc<Observed>>,
        wanted: impl Fn(&Observed) -> bool,
    ) -> Arc<Observed> {
        let seen = latest.wait_for(|observed| wanted(observed));
        let seen = tokio::time::timeout(Duration::from_secs(20), seen).await;
        Arc::clone(&seen.expect("it never came").unwrap())
    }

    fn say(line: &Line) -> String {
        format!("echo '{}'", serde_json::to_string(line).unwrap())
    }

    fn gpu(index: u32) -> String {
        let sample = GpuSample { index, uuid: format!("GPU-{index}"), ..GpuSample::default() };
        say(&Line::Gpu(Box::new(sample)))
    }

    fn opened() -> String {
        say(&Line::Opened(Driver { count: 2, ..Driver::default() }))
    }

    #[tokio::test]
    async fn a_hang_is_named_and_the_last_samples_stay() {
        let node = Node::new();
        let end = say(&Line::End);
        let asking = say(&Line::Asking { what: "GPU 1".into() });
        let (zero, one, opened) = (gpu(0), gpu(1), opened());
        let mut latest = node.start(&format!(
            "{opened}; {zero}; {one}; {end}; {opened}; {zero}; {asking}; exec sleep 60"
        ));
        until(&mut latest, |seen| seen.snapshot.driver_up).await;
        let hung = until(&mut latest, |seen| !seen.snapshot.driver_up).await;
        let gpus = &hung.snapshot.gpus;
        assert_eq!(gpus.len(), 2, "nobody is hidden");
        assert_eq!(gpus[0].trouble, None, "it answered in the round that hung");
        assert_eq!(gpus[1].trouble, Some(Trouble::Unasked));
        let facts = hung.facts.as_ref().unwrap();
        let Outcome::Hung { asking, .. } = &facts.nvml.outcome else { panic!("{facts:?}") };
        assert_eq!(asking, "GPU 1");
    }

    #[tokio::test]
    async fn a_helper_that_dies_is_replaced() {
        let node = Node::new();
        let count = format!("echo x >> {}/starts", node.path().display());
        let mut latest = node.start(&format!("{count}; {}; exit 1", opened()));
        until(&mut latest, |seen| {
            let starts = fs::read_to_string(node.path().join("starts")).unwrap_or_default();
            starts.lines().count() >= 3 && seen.facts.is_some()
        })
        .await;
    }

    #[tokio::test]
    async fn a_driver_that_comes_later_is_noticed() {
        let node = Node::new();
        fs::remove_file(node.path().join("sys/module/nvidia/version")).unwrap();
        let script = format!("{}; {}; {}; exec sleep 60", opened(), gpu(0), say(&Line::End));
        let mut latest = node.start(&script);
        let none = until(&mut latest, |seen| seen.facts.is_some()).await;
        assert!(matches!(none.facts.as_ref().unwrap().nvml.outcome, Outcome::NotAsked(_)));
        node.write("sys/module/nvidia/version", "580.95.05\n");
        until(&mut latest, |seen| seen.snapshot.driver_up).await;
    }

    #[test]
    fn the_join_says_what_should_be_there() {
        let golden = include_str!("../../../contract/golden/join_report.json");
        let mut report: JoinReport = serde_json::from_str(golden).unwrap();
        let count = |report: &JoinReport| {
            expected_of(report, &WatchSettings::default()).gpus.map(|gpus| gpus.count)
        };
        assert_eq!(count(&report), Some(8));
        report.gpus = None;
        assert_eq!(count(&report), None);
        let drivers = report.phases.iter_mut().find(|one| one.phase == Phase::Drivers).unwrap();
        drivers.state = PhaseState::Skipped;
        assert_eq!(count(&report), Some(0));
        assert!(drivers::skipped(&expected_of(&report, &WatchSettings::default())).is_some());
    }

    #[tokio::test]
    async fn a_node_without_gpus_is_left_alone() {
        let node = Node::new();
        let mut report: JoinReport =
            serde_json::from_str(include_str!("../../../contract/golden/join_report.json"))
                .unwrap();
        report.instance.instance_type = "m7i.large".into();
        report.gpus = None;
        node.write("run/rollcall/report.json", &serde_json::to_string(&report).unwrap());
        let mut latest = node.start("exit 1");
        let seen = until(&mut latest, |seen| seen.facts.is_some()).await;
        let facts = seen.facts.as_ref().unwrap();
        assert_eq!(facts.nvml.outcome, Outcome::NotAsked("the instance has no GPUs"));
        assert_eq!(seen.snapshot.hostname, report.instance.name);
    }
}
