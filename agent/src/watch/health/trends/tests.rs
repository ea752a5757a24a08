//! Rounds, one after the other, and what they come to.

use super::*;
use crate::gpu::catalogue::Check;

/// Between two rounds.
const ROUND: u64 = 4;

struct Node {
    trends: Trends,
    signs: Signs,
    now: u64,
    is_complete: bool,
}

impl Node {
    fn new() -> Self {
        let mut node = Self {
            trends: Trends::default(),
            signs: Signs::default(),
            now: 1000,
            is_complete: true,
        };
        node.count(0, 1);
        node
    }

    fn counted(total: u64, limit: u64) -> Counted {
        Counted {
            check: Check::NvlinkErrors,
            reason: Reason::NvlinkErrors,
            whose: "GPU 3".into(),
            what: "NVLinks trained anew",
            total,
            limit,
        }
    }

    fn count(&mut self, total: u64, limit: u64) -> Vec<String> {
        self.signs.counted = vec![Self::counted(total, limit)];
        self.round()
    }

    /// A round; kept through a restart of the watch, as everything is.
    fn round(&mut self) -> Vec<String> {
        self.now += ROUND;
        let text = serde_json::to_string(&self.trends).unwrap();
        self.trends = serde_json::from_str(&text).unwrap();
        let look = Look {
            is_round: true,
            is_complete: self.is_complete,
            signs: Some(&self.signs),
            ..Look::default()
        };
        let found = self.trends.round(&look, Duration::from_secs(self.now));
        found.into_iter().map(|finding| finding.reason.to_string()).collect()
    }

    fn log(&mut self, line: LogLine) -> Vec<Action> {
        let mut actions = Vec::new();
        let logged = Logged { line, process: None };
        self.trends.take(&logged, Duration::from_secs(self.now), &mut actions);
        actions
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn too_many_within_ten_minutes_are_said_until_ten_minutes_after() {
    let mut node = Node::new();
    assert_eq!(node.count(2, 3), NOTHING);
    assert_eq!(node.count(3, 3), ["NvlinkErrors"]);
    node.now += 500;
    assert_eq!(node.count(3, 3), ["NvlinkErrors"]);
    node.now += 100;
    assert_eq!(node.count(3, 3), NOTHING);
    // As many again, spread over an hour, are none too many.
    for total in 4..12 {
        node.now += 450;
        assert_eq!(node.count(total, 3), NOTHING, "{total}");
    }
}

#[test]
fn what_was_counted_before_anybody_looked_is_where_it_starts() {
    let mut node = Node { trends: Trends::default(), ..Node::new() };
    assert_eq!(node.count(70_000, 100), NOTHING);
    assert_eq!(node.count(70_099, 100), NOTHING);
    assert_eq!(node.count(70_100, 100), ["NvlinkErrors"]);
}

#[test]
fn a_total_that_begins_anew_has_left_its_errors_behind() {
    let mut node = Node::new();
    assert_eq!(node.count(500, 100), ["NvlinkErrors"]);
    assert_eq!(node.count(0, 100), NOTHING, "reset, or the driver was loaded anew");
    assert_eq!(node.count(99, 100), NOTHING);
    assert_eq!(node.count(500, 100), ["NvlinkErrors"]);
    assert_eq!(node.count(7, 100), NOTHING, "reset, and some have come since");
    assert_eq!(node.trends.totals.len(), 1);
}

#[test]
fn who_does_not_answer_has_not_begun_anew() {
    let mut node = Node::new();
    assert_eq!(node.count(500, 100), ["NvlinkErrors"]);
    node.signs.counted.clear();
    assert_eq!(node.round(), NOTHING);
    assert_eq!(node.count(500, 100), ["NvlinkErrors"], "the same that were said before");
}

#[test]
fn errors_of_the_log_count_where_the_kernel_has_no_counters() {
    let mut node = Node::new();
    let error = |pci: &str, severity| LogLine::Pcie { pci: pci.into(), severity };
    node.signs.uncounted.insert("0000:53:00.0".into(), "GPU 0".into());
    assert_eq!(node.round(), NOTHING);
    // Somebody else's, and corrected ones: a few are nothing.
    node.log(error("0000:00:1f.0", 2));
    for _ in 0..99 {
        node.log(error("0000:53:00.0", 0));
    }
    assert_eq!(node.round(), NOTHING);
    node.log(error("0000:53:00.0", 0));
    assert_eq!(node.round(), ["PcieErrors"]);
    node.now += 700;
    assert_eq!(node.round(), NOTHING);
    node.log(error("0000:53:00.0", 1));
    assert_eq!(node.round(), ["PcieErrors"], "one that could not be corrected is one too many");
}

#[test]
fn a_crash_is_told_once_a_program_and_each_is_counted() {
    let mut node = Node::new();
    let crash = |name: &str| LogLine::NcclCrash {
        pid: 17,
        name: name.into(),
        library: "libnccl.so.2".into(),
    };
    let told = node.log(crash("python3"));
    let [Action::Tell(notice)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(notice.reason, "NcclCrash");
    assert_eq!(notice.message, "process python3 (pid 17) crashed in libnccl.so.2");
    assert_eq!(node.log(crash("python3")), []);
    assert_eq!(node.log(crash("train")).len(), 1);
    node.now += 700;
    assert_eq!(node.log(crash("python3")).len(), 1);
    assert_eq!(node.trends.crashes, 4);
}

/// Rounds of `minutes`, of which this many of five are slow. What was said last.
fn slow(node: &mut Node, minutes: u64, of_five: u64) -> Vec<String> {
    let mut said = Vec::new();
    for round in 0..minutes * 60 / ROUND {
        node.signs.slowed = BTreeMap::from([("GPU 3".to_owned(), round % 5 < of_five)]);
        said = node.round();
    }
    said
}

#[test]
fn a_slowdown_stays_when_it_is_there_for_most_of_ten_minutes() {
    let mut node = Node::new();
    assert_eq!(slow(&mut node, 9, 5), NOTHING);
    assert_eq!(slow(&mut node, 2, 5), ["SlowdownPersists"]);
    assert_eq!(slow(&mut node, 1, 0), NOTHING, "a minute without is its end");
    assert_eq!(node.trends.slowed, BTreeMap::new());
    assert_eq!(slow(&mut node, 60, 3), NOTHING, "three of five are too few");
    assert_eq!(slow(&mut node, 12, 5), ["SlowdownPersists"]);
    let mut healthy = Node::new();
    assert_eq!(slow(&mut healthy, 30, 0), NOTHING);
    assert_eq!(healthy.trends.slowed, BTreeMap::new(), "nothing is kept of a healthy GPU");
}

#[test]
fn a_program_is_stuck_after_a_minute_and_another_of_its_number_is_another() {
    let mut node = Node::new();
    let process = |started| StuckProcess {
        pid: 17,
        started,
        name: "python3".into(),
        state: 'D',
        gpus: vec![0, 1],
    };
    node.signs.stuck = vec![process(1)];
    assert_eq!(node.round(), NOTHING);
    node.now += 50;
    assert_eq!(node.round(), NOTHING);
    node.now += 10;
    assert_eq!(node.round(), ["GpuProcessStuck"]);
    // A driver that does not answer names no programs.
    (node.is_complete, node.signs.stuck) = (false, Vec::new());
    node.round();
    (node.is_complete, node.signs.stuck) = (true, vec![process(1)]);
    assert_eq!(node.round(), ["GpuProcessStuck"]);
    node.signs.stuck = vec![process(2)];
    assert_eq!(node.round(), NOTHING);
    node.signs.stuck = Vec::new();
    node.round();
    assert_eq!(node.trends.stuck, BTreeMap::new());
}

#[test]
fn many_are_one_finding() {
    let mut node = Node::new();
    node.count(0, 1);
    let counted =
        |number: u32, total| Counted { whose: format!("GPU {number}"), ..Node::counted(total, 1) };
    node.signs.counted = (0..8).map(|number| counted(number, 0)).collect();
    node.round();
    node.signs.counted = (0..8).map(|number| counted(number, 5)).collect();
    let look = Look { is_complete: true, signs: Some(&node.signs), ..Look::default() };
    let found = node.trends.round(&look, Duration::from_secs(node.now));
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].summary,
        "GPU 0: 5 NVLinks trained anew in 10 minutes; GPU 1: 5 NVLinks trained anew in 10 minutes; \
         GPU 2: 5 NVLinks trained anew in 10 minutes; and 5 more"
    );
}
