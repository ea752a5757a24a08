//! Ten thousand days of healthy nodes, with the noise that healthy nodes make: nothing may be called
//! ill, and no gate may close. The same days with one fault each: each must be seen.
//!
//! Kernel lines go through the parser, samples through the drivers phase's verdict, so that this holds
//! for the whole way from what is said to what is decided. Time is the generator's own.

mod broken;

use std::sync::Arc;
use std::time::Duration;

use contract::join_report::JoinOutcome;
use contract::reason::Owner;

use super::*;
use crate::gpu::checks::over_time::StuckProcess;
use crate::gpu::pci::PciErrors;
use crate::gpu::probe::Outcome;
use crate::gpu::sample::{CallError, Failure, NvlinkErrors, Readings};
use crate::gpu::xid::Parser;
use crate::phases::drivers::{self, DriverFacts, Expected};
use crate::watch::evidence::{self, Evidence};
use crate::watch::sampler::Observed;
use crate::watch::testing;

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(4);
const DAY: u64 = 86_400;
const DAYS: u64 = 10_000;

/// Xorshift: the same days for the same seed.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.below(2);
        random
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// A node that is looked at.
struct Node {
    random: Random,
    now: Moment,
    facts: DriverFacts,
    /// What the facts come to: made anew only when they have changed, for it is pure.
    seen: Option<(DriverFacts, Evidence)>,
    expected: Expected,
    health: Health,
    rules: Rules,
    parser: Parser,
}

impl Node {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (instance_type, count, name) = random.pick(&[
            ("p5.48xlarge", 8, "NVIDIA H100 80GB HBM3"),
            ("g6.xlarge", 1, "NVIDIA L4"),
            ("g6.xlarge", 1, "NVIDIA L4"),
            ("g5.12xlarge", 4, "NVIDIA A10G"),
        ]);
        let mut facts = testing::facts(count, name);
        // Half of the drivers are too old to say what they want.
        let recovery = random.pick(&[Some(0), None]);
        for gpu in &mut facts.nvml.gpus {
            gpu.readings.recovery_action = recovery;
            gpu.readings.clock_event_reasons = Some(0);
            gpu.readings.slowdown_margin = Some(40);
            let count = || Some(0);
            gpu.readings.nvlink_errors = Some(NvlinkErrors {
                crc_flit: count(),
                crc_data: count(),
                replays: count(),
                recoveries: count(),
                failed_recoveries: count(),
            });
        }
        for function in facts.pci.iter_mut().flatten() {
            function.errors = Some(PciErrors::default());
        }
        let mut node = Self {
            random,
            now: Duration::from_secs(300),
            facts,
            expected: Expected { instance_type: instance_type.into(), ..Expected::default() },
            seen: None,
            health: Health::default(),
            rules: Rules::default(),
            parser: Parser::default(),
        };
        node.round();
        node.round();
        node
    }

    fn gpu(&mut self) -> usize {
        usize::try_from(self.random.below(self.facts.nvml.gpus.len() as u64)).unwrap()
    }

    fn evidence(&mut self) -> Evidence {
        if let Some((facts, evidence)) = &self.seen
            && *facts == self.facts
        {
            return evidence.clone();
        }
        let evidence = evidence::of(&self.observed(), true).unwrap();
        self.seen = Some((self.facts.clone(), evidence.clone()));
        evidence
    }

    fn observed(&self) -> Observed {
        let join = Some(testing::report(JoinOutcome::Ready, &[]));
        let snapshot = crate::metrics::snapshot::Snapshot { join, ..Default::default() };
        Observed {
            snapshot: Arc::new(snapshot),
            facts: Some(self.facts.clone()),
            expected: Some(self.expected.clone()),
            ..Observed::default()
        }
    }

    fn step(&mut self, is_round: bool, xids: &[Seen]) -> Vec<Action> {
        let evidence = self.evidence();
        let look = evidence.look(is_round, xids, &[]);
        let before = std::mem::take(&mut self.health);
        let (after, actions) = step(before, &look, &self.rules, self.now);
        self.health = after;
        actions
    }

    fn round(&mut self) -> Vec<Action> {
        self.now += ROUND;
        self.step(true, &[])
    }

    /// A line of the kernel's log that is no XID.
    fn kernel(&mut self, text: &str) -> Vec<Action> {
        let line = crate::gpu::log_line::read(text).unwrap();
        let evidence = self.evidence();
        let lines = [Logged { line, process: None }];
        let look = evidence.look(false, &[], &lines);
        let (after, actions) = step(std::mem::take(&mut self.health), &look, &self.rules, self.now);
        self.health = after;
        actions
    }

    fn readings(&mut self, gpu: usize) -> &mut Readings {
        &mut self.facts.nvml.gpus[gpu].readings
    }

    fn log(&mut self, text: &str, pod: Option<&str>) {
        let records = self.parser.take(text);
        let seen: Vec<Seen> = records
            .into_iter()
            .map(|record| Seen { record, pod: pod.map(str::to_owned), ..Seen::default() })
            .collect();
        if !seen.is_empty() {
            self.step(false, &seen);
        }
    }

    fn xid(&mut self, gpu: usize, text: &str, pod: Option<&str>) {
        let pci = &self.facts.nvml.gpus[gpu].pci;
        let address = pci.trim_end_matches(".0").to_owned();
        self.log(&format!("NVRM: Xid (PCI:{address}): {text}"), pod);
    }

    fn status(&self) -> Status {
        self.health.standing.as_ref().unwrap().status
    }

    fn is_admitted(&mut self) -> bool {
        self.evidence().findings.iter().all(|finding| !finding.reason.is_hard())
    }

    /// What happens on healthy nodes, and how often.
    fn noise(&mut self) {
        let gpu = self.gpu();
        let healthy = self.facts.clone();
        let pod = format!("pod-{}", self.random.below(1000));
        match self.random.below(15) {
            0 | 1 => {
                let code = self.random.pick(&[13, 31, 43, 45, 8, 32, 68, 69, 94, 44, 109_000]);
                let text = format!("{code}, pid=7, name=python3, Ch 00000008");
                for _ in 0..=self.random.below(6) {
                    self.xid(gpu, &text, Some(&pod));
                }
            }
            2 => {
                // Idle: the link slows down, the clocks are held.
                let readings = &mut self.facts.nvml.gpus[gpu].readings;
                readings.pcie_generation = Some(1);
                readings.clock_event_reasons = Some(self.random.pick(&[0x1, 0x4, 0x0]));
                return;
            }
            3 => {
                // A slow call: the round comes late.
                self.now += Duration::from_secs(1 + self.random.below(8));
            }
            4 | 5 => self.fail_once(gpu),
            6 => {
                // Corrected errors are what ECC is for.
                if let Some(ecc) = &mut self.facts.nvml.gpus[gpu].readings.ecc {
                    ecc.volatile_corrected = ecc.volatile_corrected.map(|count| count + 17);
                }
                self.xid(gpu, "92, High single-bit ECC error rate", None);
                return;
            }
            7 => self.xid(
                gpu,
                "145, RLW_REMAP Nonfatal XC0 i0 Link 72 (0x00000004 0x80000000)",
                None,
            ),
            8 => self
                .log("nvidia-nvswitch1: SXid (PCI:0000:c1:00.0): 28006, Non-fatal, Link 46", None),
            9 => return self.errors_of_links(gpu),
            10..=12 => self.pass_by(gpu),
            13 => {
                let code = self.random.pick(&[163, 162, 164, 121, 4711]);
                self.xid(gpu, &format!("{code}, words"), None);
            }
            _ => {
                // The watch ends and begins anew, and has not sampled at first.
                let text = serde_json::to_string(&self.health).unwrap();
                self.health = serde_json::from_str(&text).unwrap();
            }
        }
        self.facts = healthy;
    }

    /// A call fails, the helper dies, or the library does not open, and the next time it does.
    fn fail_once(&mut self, gpu: usize) {
        let kind = self.random.below(3);
        let code = self.random.pick(&[999, 10, 19, 17]);
        let error = CallError { call: "x".into(), code, text: "once".into() };
        match kind {
            0 => self.facts.nvml.gpus[gpu].error = Some(error),
            1 => {
                let why = "it ended with signal 9 while asking for GPU 0".into();
                self.facts.nvml.outcome = Outcome::HelperFailed(why);
                self.facts.nvml.gpus.truncate(gpu);
            }
            _ => {
                let error = CallError { code: 999, ..error };
                let failure = Failure::Init { library: "l".into(), error };
                self.facts.nvml.outcome = Outcome::Failed(failure);
                self.facts.nvml.gpus.truncate(gpu);
            }
        }
        self.round();
    }

    /// What is there for a round and means nothing: a clock changes, and hardware says for that moment that it
    /// holds it down; a program waits for its disk; one crashes.
    fn pass_by(&mut self, gpu: usize) {
        match self.random.below(3) {
            0 => {
                let mask = self.random.pick(&[0x8, 0x48, 0x88, 0x20]);
                self.readings(gpu).clock_event_reasons = Some(mask);
            }
            1 => {
                let (name, started) = ("python3".to_owned(), self.now.as_secs());
                let process = StuckProcess { pid: 7, started, name, state: 'D', gpus: vec![0] };
                self.facts.stuck.push(process);
            }
            _ => {
                let line = "python3[7]: segfault at 0 ip 1 sp 2 error 4 in libnccl.so.2[7f+1]";
                self.kernel(line);
            }
        }
        self.round();
    }

    /// A few errors that links correct: they stay counted.
    fn errors_of_links(&mut self, gpu: usize) {
        let some = 1 + self.random.below(4);
        let kind = self.random.below(4);
        let errors = self.readings(gpu).nvlink_errors.as_mut().unwrap();
        match kind {
            0 => errors.crc_flit = errors.crc_flit.map(|count| count + some),
            1 => errors.replays = errors.replays.map(|count| count + some),
            2 => {
                let counter = ("rdmap79s0".to_owned(), "rx_drops");
                *self.facts.efa.errors.entry(counter).or_default() += some * 20;
            }
            _ => {
                let function = &mut self.facts.pci.as_mut().unwrap()[gpu];
                function.errors.as_mut().unwrap().correctable += some;
            }
        }
    }

    /// A day, and what was wrong in it.
    fn day(&mut self) -> Result<(), String> {
        let start = self.now;
        let count = 4 + self.random.below(8);
        let mut moments: Vec<u64> = (0..count).map(|_| self.random.below(DAY)).collect();
        moments.sort_unstable();
        for moment in moments {
            // What happens between two noises is the same round over and over.
            self.now = self.now.max(start + Duration::from_secs(moment));
            self.noise();
            self.check("after a noise")?;
            self.round();
            self.check("a round later")?;
            if !self.is_admitted() {
                let verdict = drivers::verdict(&self.facts, &self.expected);
                return Err(format!("the gate would be closed: {verdict:?}"));
            }
        }
        Ok(())
    }

    fn check(&self, when: &str) -> Result<(), String> {
        // What only the watch looks at is not even an event.
        let is_of_watch = |reason: &ReasonName| {
            reason.known().is_some_and(|reason| reason.entry().owner == Owner::AfterJoin)
        };
        let soft = self.health.levels.all_open().find(|open| is_of_watch(&open.finding.reason));
        if let Some(level) = soft {
            return Err(format!("{when}: {:?}", level.finding));
        }
        match self.status() {
            Status::True => Ok(()),
            _ => Err(format!("{when}: {:?}", self.health.standing)),
        }
    }
}

/// Runs `each` for these seeds on two threads.
fn each_seed(seeds: u64, each: impl Fn(u64) -> Result<(), String> + Sync) {
    let run =
        |half: u64| (half..seeds).step_by(2).find_map(|seed| each(seed).err().map(|e| (seed, e)));
    let failed = std::thread::scope(|scope| {
        let other = scope.spawn(|| run(1));
        run(0).or(other.join().unwrap())
    });
    assert_eq!(failed, None, "seed and what was wrong");
}

#[test]
fn ten_thousand_healthy_node_days_and_no_false_alarm() {
    // Ten days of each node: what is remembered of one day must not tip the next.
    each_seed(DAYS / 10, |seed| {
        let mut node = Node::new(seed);
        (0..10).try_for_each(|_| node.day())
    });
}
