//! What the recorder keeps, forgets and names.

use contract::Reason;

use super::*;
use crate::report::file;

fn fail(reason: Reason, phase: Phase) -> Verdict {
    Verdict::Fail(vec![Finding::new(reason, phase, "seen")])
}

#[tokio::test]
async fn a_failure_stays_open_until_it_is_refuted() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    std::fs::create_dir(root.path("/dev")).unwrap();
    std::fs::write(root.path("/dev/console"), "").unwrap();
    let recorder = Recorder::new(root.clone(), "boot");
    let read = || file::read(&root).unwrap();

    assert_eq!(recorder.begin_attempt(), 1);
    recorder.begin(Phase::Drivers);
    assert_eq!(read().outcome, JoinOutcome::Joining);
    recorder.end(Phase::Drivers, &fail(Reason::GpuLost, Phase::Drivers));
    assert_eq!(read().outcome, JoinOutcome::Failed);
    assert_eq!(read().description(), "v1 reason=GpuLost phase=drivers attempt=1");

    assert_eq!(recorder.begin_attempt(), 2);
    recorder.begin(Phase::Identify);
    recorder.end(Phase::Identify, &Verdict::Pass);
    assert_eq!(read().outcome, JoinOutcome::Failed, "nothing has refuted it");
    assert_eq!(read().cause().unwrap().reason, Reason::GpuLost);
    recorder.begin(Phase::Drivers);
    recorder.end(Phase::Drivers, &Verdict::Pass);
    assert_eq!(read().outcome, JoinOutcome::Joining);
    recorder.begin(Phase::Ready);
    recorder.end(Phase::Ready, &Verdict::Pass);
    assert_eq!(read().outcome, JoinOutcome::Ready);

    recorder.flush(Duration::from_secs(10));
    let console = std::fs::read_to_string(root.path("/dev/console")).unwrap();
    let last = contract::ConsoleLine::last_in(&console).unwrap();
    assert_eq!((last.outcome, last.attempt), (JoinOutcome::Ready, 2));
    assert!(console.lines().count() <= 4, "one line per verdict: {console}");
}

#[tokio::test]
async fn patience_begins_anew_when_a_phase_is_no_longer_held_up() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::new(Root::new(dir.path()), "boot");
    let named = || !recorder.subscribe().borrow().reasons.is_empty();
    let wait = || {
        let finding = Finding::new(Reason::NodeNotRegistered, Phase::Register, "no Node yet");
        recorder.waiting(Phase::Register, &finding);
    };
    recorder.begin_attempt();
    recorder.begin(Phase::Register);
    let minutes_ago = Instant::now().checked_sub(Duration::from_secs(300)).unwrap();
    recorder.state.borrow_mut().begun.insert(Phase::Register, minutes_ago);
    recorder.held_up(Phase::Register, "cloud-final.service is activating");
    wait();
    assert!(!named(), "a slow user script is no fault of kubelet's");
    recorder.state.borrow_mut().held.insert(Phase::Register, minutes_ago);
    wait();
    assert!(named());
}

#[tokio::test]
async fn what_stands_over_the_join_belongs_to_no_phase() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::new(Root::new(dir.path()), "boot");
    let report = || recorder.subscribe().borrow().clone();
    let finding = |reason| Finding::new(reason, Phase::Register, "announced");
    recorder.begin_attempt();
    recorder.begin(Phase::Preflight);
    recorder.standing("x", vec![finding(Reason::MaintenanceScheduled)]);
    assert_eq!(report().outcome, JoinOutcome::Joining);
    recorder.standing("y", vec![finding(Reason::SpotInterrupted)]);
    assert_eq!(report().outcome, JoinOutcome::Failed, "two minutes are left: say so now");
    assert_eq!(report().cause().unwrap().reason, Reason::SpotInterrupted);
    recorder.end(Phase::Preflight, &Verdict::Pass);
    assert_eq!(report().reasons.len(), 2, "no phase refutes it");
    recorder.standing("y", vec![]);
    assert_eq!(report().outcome, JoinOutcome::Joining);
    assert_eq!(report().reasons, [finding(Reason::MaintenanceScheduled)]);
}

#[tokio::test]
async fn a_restart_counts_on() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    Recorder::new(root.clone(), "boot").begin_attempt();
    assert_eq!(Recorder::new(root.clone(), "boot").begin_attempt(), 2);
    assert_eq!(Recorder::new(root, "next boot").begin_attempt(), 1);
}

#[tokio::test]
async fn phases_stand_in_join_order_whatever_ends_first() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::new(Root::new(dir.path()), "boot");
    recorder.begin_attempt();
    recorder.begin(Phase::Bootstrap);
    recorder.begin(Phase::Preflight);
    recorder.skip(Phase::Drivers, "no GPUs".into());
    recorder.end(Phase::Bootstrap, &Verdict::Pass);
    let finding = Finding::new(Reason::ApiServerUnreachable, Phase::Preflight, "no way");
    recorder.waiting(Phase::Preflight, &finding);
    let report = recorder.subscribe().borrow().clone();
    let states: Vec<_> = report.phases.iter().map(|p| (p.phase, p.state)).collect();
    assert_eq!(
        states,
        [
            (Phase::Preflight, PhaseState::Waiting),
            (Phase::Drivers, PhaseState::Skipped),
            (Phase::Bootstrap, PhaseState::Passed),
        ]
    );
    assert_eq!(report.phases[0].detail.as_deref(), Some("no way"));
    assert!(report.reasons.is_empty(), "a short wait is not named");
}
