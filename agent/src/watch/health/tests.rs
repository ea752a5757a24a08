//! When the condition turns, and when it turns back.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::agent_config::{GpuReset, Show, XidClass, XidRule};
use contract::{Finding, Phase, Reason};

use super::standing::{KARPENTER_REBOOTS, KARPENTER_REPLACES, Repair, karpenter};
use super::*;
use crate::gpu::xid::table;

/// A node with eight GPUs, looked at every five seconds.
struct Node {
    health: Health,
    rules: Rules,
    now: Moment,
    gpus: Vec<GpuLook>,
    findings: Vec<Finding>,
    is_complete: bool,
    blind: Option<String>,
    join: JoinStanding,
}

impl Node {
    fn new() -> Self {
        let gpu = |i: usize| GpuLook {
            pci: pci(i),
            uuid: format!("GPU-{i}"),
            answers: true,
            parts: None,
            recovery: Some(0),
        };
        let mut node = Self {
            health: Health::default(),
            rules: Rules::default(),
            now: Duration::from_secs(600),
            gpus: (0..8).map(gpu).collect(),
            findings: Vec::new(),
            is_complete: true,
            blind: None,
            join: JoinStanding::Ready,
        };
        node.round();
        assert_eq!(node.status(), Status::True);
        node
    }

    fn step(&mut self, is_round: bool, xids: &[Seen]) -> Vec<Action> {
        let look = Look {
            is_round,
            is_complete: self.is_complete,
            is_unloaded: false,
            findings: &self.findings,
            signs: None,
            lines: &[],
            blind: self.blind.clone(),
            gpus: &self.gpus,
            xids,
            join: self.join.clone(),
        };
        let (health, actions) =
            step(std::mem::take(&mut self.health), &look, &self.rules, self.now);
        self.health = health;
        actions
    }

    /// Five seconds pass, and a round comes.
    fn round(&mut self) -> Vec<Action> {
        self.pass(5);
        self.step(true, &[])
    }

    fn rounds(&mut self, count: u32) -> Vec<Action> {
        (0..count).flat_map(|_| self.round()).collect()
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn log(&mut self, gpu: usize, code: u32) -> Vec<Action> {
        self.step(false, &[xid(gpu, code)])
    }

    fn find(&mut self, reason: Reason) {
        self.findings = vec![Finding::new(reason, Phase::Drivers, "said")];
    }

    fn status(&self) -> Status {
        self.health.standing.as_ref().unwrap().status
    }

    fn reason(&self) -> &str {
        &self.health.standing.as_ref().unwrap().reason
    }

    /// The watch ends and begins anew: it knows what it has written down.
    fn restart(&mut self) {
        let text = serde_json::to_string(&self.health).unwrap();
        self.health = serde_json::from_str(&text).unwrap();
    }
}

fn pci(gpu: usize) -> String {
    format!("0000:{:02x}:00.0", 0x50 + gpu)
}

fn xid(gpu: usize, code: u32) -> Seen {
    let record = Record { pci: pci(gpu), code, detail: "words".into(), ..Record::default() };
    Seen { record, ..Seen::default() }
}

fn in_pod(gpu: usize, code: u32, pod: &str) -> Seen {
    Seen { pod: Some(pod.into()), process: Some(format!("pod {pod}")), ..xid(gpu, code) }
}

fn told(actions: &[Action]) -> Vec<&str> {
    let reason = |action: &'_ Action| match action {
        Action::Tell(notice) => Some(notice.reason.clone()),
        _ => None,
    };
    actions.iter().filter_map(reason).map(|reason| &*reason.leak()).collect()
}

#[test]
fn a_finding_is_believed_at_its_second_round_and_so_is_its_end() {
    let mut node = Node::new();
    node.find(Reason::GpuLost);
    assert_eq!((node.round(), node.status()), (vec![Action::LookSoon], Status::True));
    let actions = node.round();
    assert_eq!(
        (told(&actions), node.status(), node.reason()),
        (vec!["GpuLost"], Status::False, "NvidiaXID79Error")
    );
    assert_eq!(node.rounds(100), [], "once is enough");

    node.findings.clear();
    assert_eq!((node.round(), node.status()), (vec![Action::LookSoon], Status::False));
    let actions = node.round();
    assert_eq!((told(&actions), node.status()), (vec!["GpuLost"], Status::True));
    assert!(matches!(&actions[0], Action::Tell(notice) if !notice.is_warning));
}

#[test]
fn an_accident_of_one_round_is_nothing() {
    let mut node = Node::new();
    for _ in 0..50 {
        node.find(Reason::GpuCountShort);
        assert_eq!(node.round(), [Action::LookSoon]);
        node.findings.clear();
        assert_eq!(node.round(), []);
        assert_eq!(node.status(), Status::True);
    }
}

#[test]
fn a_hang_has_been_waited_for_already() {
    let mut node = Node::new();
    node.find(Reason::DriverHang);
    node.is_complete = false;
    node.round();
    assert_eq!((node.status(), node.reason()), (Status::False, "DCGMError"));
}

#[test]
fn what_a_silent_driver_hides_has_not_gone_away() {
    let mut node = Node::new();
    node.find(Reason::GpuLost);
    node.rounds(2);
    let reason = node.reason().to_owned();
    node.find(Reason::DriverHang);
    node.is_complete = false;
    node.rounds(10);
    assert_eq!((node.status(), node.reason()), (Status::False, reason.as_str()));
    node.findings.clear();
    node.is_complete = true;
    node.rounds(2);
    assert_eq!(node.status(), Status::True);
}

#[test]
fn the_transition_time_moves_with_the_status_alone() {
    let mut node = Node::new();
    let since = |node: &Node| node.health.standing.as_ref().unwrap().since;
    let well = since(&node);
    node.rounds(10);
    assert_eq!(since(&node), well);
    node.find(Reason::GpuLost);
    node.rounds(2);
    let ill = since(&node);
    assert_eq!(ill, node.now);
    node.find(Reason::DriverHang);
    node.rounds(20);
    node.log(3, 79);
    assert_eq!(since(&node), ill, "another reason is no transition");
}

#[test]
fn one_that_comes_and_goes_is_held_until_the_repairers_have_seen_it() {
    let mut node = Node::new();
    for _ in 0..3 {
        node.find(Reason::GpuLost);
        node.rounds(2);
        node.findings.clear();
        node.rounds(2);
    }
    assert_eq!(node.status(), Status::False, "the third time is a flapping");
    node.rounds(39 * 12);
    assert_eq!(node.status(), Status::False, "39 minutes");
    node.rounds(2 * 12);
    assert_eq!(node.status(), Status::True);
}

#[test]
fn an_xid_counts_at_once_and_the_driver_says_when_it_is_over() {
    let mut node = Node::new();
    let actions = node.log(3, 95);
    assert_eq!(told(&actions), ["FatalXid"]);
    assert_eq!(actions[1], Action::Remember { key: "GPU-3/95".into() });
    assert_eq!((node.status(), node.reason()), (Status::False, "NvidiaXID95Error"));
    assert!(node.health.standing.as_ref().unwrap().message.contains("GPU GPU-3 at 0000:53:00.0"));

    node.gpus[3].recovery = Some(1);
    node.rounds(500);
    assert_eq!(node.status(), Status::False, "the driver still asks for a reset");
    node.gpus[3].recovery = Some(0);
    assert_eq!((node.round(), node.status()), (vec![Action::LookSoon], Status::False));
    assert_eq!((told(&node.round()), node.status()), (vec!["FatalXid"], Status::True));
}

#[test]
fn where_the_driver_says_nothing_a_gpu_that_was_away_is_over() {
    let mut node = Node::new();
    node.gpus.iter_mut().for_each(|gpu| gpu.recovery = None);
    node.log(3, 62);
    node.rounds(12 * 50);
    assert_eq!(node.status(), Status::False, "50 minutes, and nothing has happened to it");
    node.gpus[3].answers = false;
    node.round();
    node.gpus[3].answers = true;
    node.rounds(2);
    assert_eq!(node.status(), Status::True);

    node.log(3, 62);
    node.rounds(12 * 60 + 1);
    assert_eq!(node.status(), Status::True, "an hour, and nothing that can be measured shows it");
}

#[test]
fn a_gpu_that_does_not_answer_is_not_over() {
    let mut node = Node::new();
    node.log(3, 79);
    node.gpus[3].answers = false;
    node.gpus[3].recovery = None;
    node.find(Reason::GpuLost);
    node.rounds(1000);
    assert_eq!((node.status(), node.reason()), (Status::False, "NvidiaXID79Error"));
}

#[test]
fn an_application_error_is_an_event_with_its_pod_and_never_a_condition() {
    let mut node = Node::new();
    let actions = node.step(false, &[in_pod(2, 31, "a")]);
    let [Action::Tell(notice)] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(notice.reason, "NvidiaXID31Warning");
    assert!(notice.message.contains("GPU 0000:52:00.0, pod a: words"), "{}", notice.message);
    // A storm is counted, and told no more.
    for _ in 0..1000 {
        assert_eq!(node.step(false, &[in_pod(2, 31, "a")]), []);
    }
    assert_eq!(node.health.ledger.counters["0000:52:00.0/31"].total, 1001);
    assert_eq!(node.status(), Status::True);
    node.pass(600);
    assert_eq!(told(&node.step(false, &[in_pod(2, 31, "a")])), ["NvidiaXID31Warning"]);
}

#[test]
fn three_pods_that_fail_on_one_gpu_put_it_under_suspicion() {
    let mut node = Node::new();
    node.step(false, &[in_pod(2, 31, "a"), in_pod(2, 31, "a"), in_pod(2, 13, "b")]);
    assert_eq!(told(&node.step(false, &[in_pod(3, 31, "c")])), ["NvidiaXID31Warning"]);
    assert_eq!(told(&node.step(false, &[in_pod(2, 31, "c")])), ["GpuSuspect"]);
    assert_eq!(node.step(false, &[in_pod(2, 31, "d")]), []);
    assert_eq!(node.status(), Status::True);
}

#[test]
fn an_unknown_code_is_an_event() {
    let mut node = Node::new();
    assert_eq!(told(&node.log(0, 4711)), ["UnknownXid"]);
    assert_eq!(node.status(), Status::True);
}

#[test]
fn a_changed_recovery_action_is_read_at_once() {
    let mut node = Node::new();
    assert!(node.log(0, 154).contains(&Action::LookAgain));
    assert_eq!(node.status(), Status::True);
}

#[test]
fn power_smoothing_that_is_back_cancels_its_loss() {
    let mut node = Node::new();
    let rule = XidRule { class: XidClass::Reset, threshold: 1, window_seconds: None };
    node.rules.xids = Table::new(BTreeMap::from([(163, rule)]));
    node.log(0, 163);
    assert_eq!(node.status(), Status::False);
    node.log(0, 162);
    assert_eq!(node.status(), Status::True);
}

#[test]
fn the_configuration_sets_class_threshold_and_window() {
    let mut node = Node::new();
    let rule = XidRule { class: XidClass::Reset, threshold: 3, window_seconds: Some(60) };
    node.rules.xids = Table::new(BTreeMap::from([(43, rule)]));
    for _ in 0..5 {
        node.log(0, 43);
        node.pass(50);
    }
    assert_eq!(node.status(), Status::True, "never three within a minute");
    node.log(0, 43);
    node.log(0, 43);
    node.log(0, 43);
    assert_eq!((node.status(), node.reason()), (Status::False, "NvidiaXID43Error"));
}

#[test]
fn a_reason_may_be_an_event_only_and_a_soft_one_count() {
    let mut node = Node::new();
    node.rules.show.insert(Reason::GpuLost.into(), Show::Event);
    node.find(Reason::GpuLost);
    assert_eq!(told(&node.rounds(5)), ["GpuLost"]);
    assert_eq!(node.status(), Status::True);
    node.find(Reason::CdiStale);
    assert_eq!(told(&node.rounds(5)), ["CdiStale", "GpuLost"]);
    assert_eq!(node.status(), Status::True);
    node.rules.show.insert(Reason::CdiStale.into(), Show::Condition);
    node.rounds(1);
    assert_eq!(node.status(), Status::False);

    node.rules.show.insert(Reason::FatalXid.into(), Show::Event);
    node.findings.clear();
    node.rounds(2);
    assert_eq!(told(&node.log(1, 95)), ["NvidiaXID95Warning"]);
    node.round();
    assert_eq!(node.status(), Status::True);
}

#[test]
fn a_restart_forgets_nothing() {
    let mut node = Node::new();
    node.log(3, 95);
    node.gpus[3].recovery = Some(1);
    node.round();
    let before = node.health.clone();
    node.restart();
    assert_eq!(node.health, before);
    // Nothing has been sampled yet: that is no news of the GPUs.
    node.blind = Some("not sampled yet".into());
    assert_eq!(node.step(false, &[]), []);
    assert_eq!(node.health.standing, before.standing);

    let mut node = Node::new();
    node.restart();
    node.blind = Some("not sampled yet".into());
    node.step(false, &[]);
    assert_eq!(node.status(), Status::True);
}

#[test]
fn what_cannot_be_seen_is_unknown_after_a_while() {
    let mut node = Node::new();
    node.blind = Some("the helper cannot be started".into());
    node.step(false, &[]);
    node.pass(29);
    node.step(false, &[]);
    assert_eq!(node.status(), Status::True);
    node.pass(2);
    node.step(false, &[]);
    assert_eq!((node.status(), node.reason()), (Status::Unknown, "NotObservable"));
    node.blind = None;
    node.round();
    assert_eq!(node.status(), Status::True);

    // A fault that stands is not unknown.
    node.log(3, 79);
    node.blind = Some("the helper cannot be started".into());
    node.pass(100);
    node.step(false, &[]);
    assert_eq!(node.status(), Status::False);
}

#[test]
fn the_join_has_its_say() {
    let mut node = Node::new();
    for (join, status, reason) in [
        (JoinStanding::Joining, Status::Unknown, "JoinUnderWay"),
        (
            JoinStanding::Failed { cause: "CniNotReady".into(), offered: Vec::new() },
            Status::Unknown,
            "JoinFailed",
        ),
        (
            JoinStanding::Failed {
                cause: "GpuAllocatableShort".into(),
                offered: vec![Finding::new(Reason::GpuAllocatableShort, Phase::Ready, "7 of 8")],
            },
            Status::False,
            "NvidiaDeviceCountMismatch",
        ),
        (JoinStanding::Ready, Status::True, "NvidiaGPUIsReady"),
    ] {
        node.join = join.clone();
        node.round();
        assert_eq!((node.status(), node.reason()), (status, reason), "{join:?}");
    }
}

#[test]
fn what_reboots_do_not_mend_asks_for_another_machine() {
    let mut node = Node::new();
    node.rules.history.boot = "third".into();
    for boot in ["first", "second"] {
        node.rules.history.faults.entry("GPU-3/95".into()).or_default().push(boot.into());
    }
    node.log(3, 95);
    assert_eq!(node.reason(), "NvidiaRepeatedXidError");
    assert_eq!(karpenter(node.reason()), Repair::Replace);
    assert!(node.health.standing.as_ref().unwrap().message.contains("reboots have not mended it"));
    node.log(4, 95);
    assert_eq!(node.reason(), "NvidiaRepeatedXidError", "the worst comes first");
}

#[test]
fn a_history_counts_boots() {
    let mut history = History { boot: "one".into(), ..History::default() };
    assert!(history.remember("k") && !history.remember("k"));
    assert_eq!(history.earlier("k"), 0);
    history.boot = "two".into();
    assert_eq!(history.earlier("k"), 1);
    for boot in 0..20 {
        history.boot = boot.to_string();
        history.remember("k");
    }
    assert_eq!(history.faults["k"].len(), 8);
}

#[test]
fn a_reset_is_asked_for_where_it_may_be_and_not_for_ever() {
    let mut node = Node::new();
    node.gpus[3].recovery = Some(1);
    node.find(Reason::GpuResetRequired);
    let resets = |actions: Vec<Action>| {
        actions.into_iter().filter(|a| matches!(a, Action::Reset { .. })).collect::<Vec<_>>()
    };
    assert_eq!(resets(node.rounds(3)), [], "off unless it is switched on");
    node.rules.reset = GpuReset::On;
    assert_eq!(resets(node.rounds(3)), [Action::Reset { pci: pci(3) }]);
    assert_eq!(resets(node.rounds(12 * 60 * 24)).len(), 1, "twice in a boot");
    node.gpus[4].recovery = Some(2);
    assert_eq!(resets(node.rounds(12)), [], "a reboot is not ours");
}

#[test]
fn the_joins_reasons_are_told_once_a_proving() {
    let mut health = Health::default();
    let findings = [Finding::new(Reason::CdiStale, Phase::Drivers, "said")];
    assert_eq!(told(&health.tell_of_join(1, &findings)), ["CdiStale"]);
    assert_eq!(health.tell_of_join(1, &findings), []);
    assert_eq!(told(&health.tell_of_join(2, &findings)), ["CdiStale"]);
}

/// Karpenter's own patterns, against everything that we may say.
#[test]
fn repairers_read_our_reasons_as_they_are_meant() {
    let mut node = Node::new();
    for code in 1..=200 {
        let rule = XidRule { class: XidClass::Reset, threshold: 1, window_seconds: None };
        node.rules.xids = Table::new(BTreeMap::from([(code, rule)]));
        node.health = Health::default();
        node.log(0, code);
        let expected = if KARPENTER_REBOOTS.contains(&code) {
            Repair::RebootSoon
        } else if KARPENTER_REPLACES.contains(&code) {
            Repair::ReplaceSoon
        } else {
            Repair::Replace
        };
        assert_eq!(karpenter(node.reason()), expected, "{}", node.reason());
    }
    // What we would replace is never rebooted by them, but for 54: an image cannot tell them.
    for code in (1..=200).filter(|code| table::class(*code) == XidClass::Replace) {
        let repair = karpenter(&format!("NvidiaXID{code}Error"));
        assert!(repair != Repair::RebootSoon || code == 54, "{code}");
    }
    // Everything that the drivers phase can find is a word of that vocabulary.
    for reason in Reason::ALL {
        let of_drivers = reason.entry().owner == contract::reason::Owner::Phase(Phase::Drivers);
        if of_drivers && reason.is_hard() && *reason != Reason::FatalXid {
            let said = reason.node_reason();
            let known = ["NvidiaDeviceCountMismatch", "DCGMError", "FabricManagerNotRunning"];
            let is_known = known.contains(&said)
                || ["NvidiaXID", "NvidiaDoubleBit", "NvidiaNVLink", "NvidiaFabric", "DCGM"]
                    .iter()
                    .any(|prefix| said.starts_with(prefix));
            assert!(is_known || said == reason.name(), "{reason:?}: {said}");
        }
    }
}
