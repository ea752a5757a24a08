//! Keeps a helper process that samples the GPUs every few seconds, and the last that each said.
//!
//! Each second it looks at the files that a driver's coming, going or reloading changes, and at the
//! join's report. The helper is started anew when those files change, when it dies, and when it
//! does not answer in time; the wait between two starts grows while the driver hangs.

use std::sync::Arc;
use std::time::Duration;

use contract::agent_config::ExpectedGpus;
use contract::join_report::{PhaseReport, PhaseState};
use contract::{JoinReport, Phase};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{LOOK, join_report};
use crate::gpu::kernel::Kernels;
use crate::gpu::library;
use crate::gpu::module;
use crate::gpu::probe::{Helper, NvmlFacts, Outcome, Round, Running};
use crate::gpu::sample::Failure;
use crate::host::Root;
use crate::metrics::snapshot::{Snapshot, Trouble, merge};
use crate::phases::drivers::{self, DriverFacts, Expected, fingerprint};

/// The rhythm of the sampling.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two rounds.
    pub interval: Duration,
    /// How long a call may take before it is a hang.
    pub patience: Duration,
    /// The longest wait between two helpers.
    pub backoff: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
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
}

/// Samples until the receivers are gone.
pub(super) async fn run(
    root: Root,
    helper: Helper,
    timing: Timing,
    publish: watch::Sender<Arc<Observed>>,
) {
    let mut sampler = Sampler { root, helper, timing, publish, state: State::default() };
    while !sampler.publish.is_closed() {
        sampler.session().await;
    }
}

struct Sampler {
    root: Root,
    helper: Helper,
    timing: Timing,
    publish: watch::Sender<Arc<Observed>>,
    state: State,
}

#[derive(Default)]
struct State {
    snapshot: Snapshot,
    nvml: Option<NvmlFacts>,
    hangs: u32,
}

impl Sampler {
    /// One helper's life, or one wait for something to ask.
    async fn session(&mut self) {
        let print = fingerprint(&self.root);
        match self.why_not_ask() {
            Some(outcome) => {
                self.take(NvmlFacts::none(outcome));
                self.wait_for_change(print, None).await;
            }
            None => match self.helper.start(&self.root, Some(self.timing.interval)) {
                Ok(mut running) => {
                    self.listen(&mut running, print).await;
                    running.stop().await;
                }
                Err(error) => {
                    self.take(NvmlFacts::none(Outcome::HelperFailed(error.to_string())));
                    self.wait_for_change(print, Some(self.timing.interval)).await;
                }
            },
        }
    }

    /// Why there is nothing to ask NVML; none when there is.
    fn why_not_ask(&self) -> Option<Outcome> {
        let report = join_report(&self.root);
        if report.as_ref().and_then(|report| drivers::skipped(&expected_of(report))).is_some() {
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

    /// Takes the helper's rounds until it has to be replaced, then waits as long as is due.
    async fn listen(&mut self, running: &mut Running, print: u64) {
        let mut round = Round::default();
        let mut heard = Instant::now();
        // The wait between two rounds is the helper's own and no hang.
        let mut resting = Duration::ZERO;
        loop {
            let look = Instant::now() + LOOK;
            match timeout_at(look, running.next_line()).await {
                Ok(Ok(Some(line))) => {
                    heard = Instant::now();
                    resting = Duration::ZERO;
                    let Some(facts) = round.take(line) else { continue };
                    let complete = facts.outcome == Outcome::Complete;
                    self.take(facts);
                    if !complete {
                        return self.wait_for_change(print, Some(self.timing.interval)).await;
                    }
                    self.state.hangs = 0;
                    resting = self.timing.interval;
                }
                Ok(ended) => {
                    let died = running.why_ended(ended.err()).await;
                    let asking = round.asking().to_owned();
                    let text = format!("it {died} while asking for {asking}");
                    self.take(round.end(Outcome::HelperFailed(text)));
                    return self.wait_for_change(print, Some(self.timing.interval)).await;
                }
                Err(_) if heard.elapsed() >= self.timing.patience + resting => {
                    return self.hung(running, &mut round, heard.elapsed() - resting, print).await;
                }
                Err(_) => {
                    self.publish();
                    if fingerprint(&self.root) != print || self.publish.is_closed() {
                        return;
                    }
                }
            }
        }
    }

    async fn hung(
        &mut self,
        running: &mut Running,
        round: &mut Round,
        after: Duration,
        print: u64,
    ) {
        let asking = round.asking().to_owned();
        tracing::warn!(asking, seconds = after.as_secs(), "the driver does not answer");
        self.take(round.end(Outcome::Hung { asking, after }));
        running.stop().await;
        self.state.hangs = self.state.hangs.saturating_add(1);
        let wait = self.timing.interval * 2_u32.saturating_pow(self.state.hangs.min(8));
        self.wait_for_change(print, Some(wait.min(self.timing.backoff))).await;
    }

    /// Waits until the driver's files change, or for `at_most`. Goes on publishing.
    async fn wait_for_change(&mut self, print: u64, at_most: Option<Duration>) {
        let start = Instant::now();
        while !self.publish.is_closed()
            && fingerprint(&self.root) == print
            && at_most.is_none_or(|limit| start.elapsed() < limit)
        {
            let left = at_most.map_or(LOOK, |limit| limit.saturating_sub(start.elapsed()));
            sleep_until(Instant::now() + left.min(LOOK)).await;
            self.publish();
            if at_most.is_none() && self.why_not_ask().is_none() {
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
        self.publish();
    }

    fn publish(&mut self) {
        let report = join_report(&self.root);
        let expected = report.as_ref().map(expected_of);
        let facts = self.state.nvml.clone().map(|nvml| DriverFacts {
            // For the join, which looks before anything runs.
            kernels: Kernels::default(),
            // Long enough that nothing is excused by a start that is still under way.
            up: Duration::MAX,
            ..DriverFacts::look(&self.root, nvml)
        });
        let snapshot = &mut self.state.snapshot;
        if let Some(report) = report {
            snapshot.hostname.clone_from(&report.instance.name);
            snapshot.expected = report.gpus.as_ref().and_then(|gpus| gpus.expected);
            snapshot.join = Some(report);
        }
        snapshot.gpus.retain(|seen| !is_ghost(seen));
        let snapshot = Arc::new(snapshot.clone());
        self.publish.send_replace(Arc::new(Observed { snapshot, facts, expected }));
    }
}

/// A GPU that never answered and is not there any more has nothing to show.
fn is_ghost(seen: &crate::metrics::snapshot::SeenGpu) -> bool {
    seen.sample.uuid.is_empty() && matches!(seen.trouble, Some(Trouble::Missing | Trouble::Unasked))
}

/// What the join found that the node should have.
fn expected_of(report: &JoinReport) -> Expected {
    let skipped =
        |one: &PhaseReport| one.phase == Phase::Drivers && one.state == PhaseState::Skipped;
    let none = report.phases.iter().any(skipped).then_some(0);
    let count = none.or_else(|| report.gpus.as_ref().and_then(|gpus| gpus.expected));
    Expected {
        instance_type: report.instance.instance_type.clone(),
        gpus: count.map(|count| ExpectedGpus { count, model: None, memory_mib: None }),
        ..Expected::default()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;
    use crate::gpu::sample::{Driver, GpuSample, Line};

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
            let timing = Timing {
                interval: Duration::from_millis(200),
                patience: Duration::from_millis(1500),
                backoff: Duration::from_millis(200),
            };
            let root = Root::new(self.path());
            tokio::spawn(run(root, self.helper(script), timing, publish));
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
        let count = |report: &JoinReport| expected_of(report).gpus.map(|gpus| gpus.count);
        assert_eq!(count(&report), Some(8));
        report.gpus = None;
        assert_eq!(count(&report), None);
        let drivers = report.phases.iter_mut().find(|one| one.phase == Phase::Drivers).unwrap();
        drivers.state = PhaseState::Skipped;
        assert_eq!(count(&report), Some(0));
        assert!(drivers::skipped(&expected_of(&report)).is_some());
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
