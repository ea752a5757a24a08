//! Plays one case: launches, listens until the verdict is heard on every channel, goes through what
//! comes after it, and ends the instance.

use std::time::{Duration, Instant};

use contract::Phase;
use contract::join_report::{JoinOutcome, PhaseReport, PhaseState};
use nix::sys::signal::Signal;

use super::after;
use super::case::{Case, Cue, Step};
use super::judge::{Heard, Judgement, Line, judge};
use super::observe::Node;
use super::stage::Stage;
use super::user_data::render;

/// Between two looks at a node.
pub(super) const POLL: Duration = Duration::from_millis(300);

/// How long a node may take to be Ready again after something has happened to it.
pub(super) const AGAIN: Duration = Duration::from_secs(120);

/// Plays a case; never fails itself: what goes wrong is in the line.
pub async fn play(stage: &Stage, case: &Case) -> Line {
    let started = Instant::now();
    let fill = |text: &str| stage.places.fill(text);
    let rendered = render(&stage.base, case, &fill);
    let mut line = Line {
        case: case.case.clone(),
        reason: case.reason.map(|named| named.0.name().to_owned()),
        named: Vec::new(),
        passed: false,
        seconds: 0.0,
        channels: Default::default(),
        why: None,
    };
    let instance = match stage.launch(case, &rendered).await {
        Ok(instance) => instance,
        Err(error) => return Line { why: Some(format!("{error:#}")), ..line },
    };
    let node = Node { stage, case, instance };
    let ((heard, judgement), unhealed) = tokio::join!(listen(&node), meanwhile(&node));
    line.seconds = (started.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    line.named = heard.named();
    line.channels = case.reason.map(|cause| heard.channels(cause)).unwrap_or_default();
    line.why = match judgement {
        Judgement::Passed => after(&node).await.err(),
        Judgement::NotYet(why) | Judgement::Wrong(why) => Some(why),
    };
    line.why = line.why.or(unhealed.err().map(|error| format!("{error:#}")));
    line.passed = line.why.is_none();
    if let Err(error) = stage.terminate(&node.instance).await {
        line.why.get_or_insert(format!("the instance could not be ended: {error:#}"));
    }
    line
}

/// What the entry has happen before its verdict.
async fn meanwhile(node: &Node<'_>) -> anyhow::Result<()> {
    let Node { stage, case, .. } = node;
    for cue in &case.meanwhile {
        match cue {
            Cue::Passed(phase) => {
                until_phase(node, *phase, &[PhaseState::Passed, PhaseState::Degraded]).await?;
            }
            Cue::Waits(phase) => until_phase(node, *phase, &[PhaseState::Waiting]).await?,
            Cue::Fault(fault) => stage.fault(case, fault).await?,
            Cue::Lift(fault) => stage.lift(case, fault).await?,
        }
    }
    Ok(())
}

/// Waits until the node's own report has a phase in one of these states.
async fn until_phase(node: &Node<'_>, phase: Phase, states: &[PhaseState]) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(node.case.within);
    loop {
        let phases = node.near().report.map(|report| report.phases).unwrap_or_default();
        let is_there = |entry: &PhaseReport| entry.phase == phase && states.contains(&entry.state);
        if phases.iter().any(is_there) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "the phase {phase} was never {states:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// Listens until the case has passed, cannot pass any more, or has had its time.
async fn listen(node: &Node<'_>) -> (Heard, Judgement) {
    let deadline = Instant::now() + Duration::from_secs(node.case.within);
    loop {
        let near = node.near();
        let judgement = judge(node.case, &near);
        // The far channels are asked when the near ones leave only them open.
        let heard = match judgement {
            Judgement::Wrong(_) => return (near, judgement),
            _ => node.all(near).await,
        };
        let judgement = judge(node.case, &heard);
        if judgement == Judgement::Passed || Instant::now() >= deadline {
            return (heard, judgement);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What the entry has happen after its verdict.
async fn after(node: &Node<'_>) -> Result<(), String> {
    for step in &node.case.then {
        let what = format!("{step:?}");
        take(node, step).await.map_err(|why| format!("after {what}: {why}"))?;
    }
    Ok(())
}

async fn take(node: &Node<'_>, step: &Step) -> Result<(), String> {
    let said = |error: anyhow::Error| format!("{error:#}");
    let lines = node.near().console.len();
    let report = node.near().report.ok_or("there is no report")?;
    match step {
        Step::Lift => {
            node.stage.fault(node.case, "clear").await.map_err(said)?;
            until(node, "the node has not joined", is_ready).await
        }
        Step::Fault(fault) => {
            node.stage.fault(node.case, &fault.to_string()).await.map_err(said)?;
            tokio::time::sleep(Duration::from_secs(3)).await;
            stays_ready(node, lines)
        }
        Step::Ill(reason, fault) => after::ill(node, *reason, fault).await,
        Step::Falls(reason, fault) => after::falls(node, *reason, fault).await,
        Step::Well => after::well(node).await,
        Step::Event(reason, fault) => after::event(node, *reason, fault, true).await,
        Step::Told(reason, fault) => after::event(node, *reason, fault, false).await,
        Step::Metric(family, fault) => after::metric(node, family, fault).await,
        Step::Restarts(reason, fault) => after::restarts(node, *reason, fault).await,
        Step::KillJoin => {
            kill_join(node)?;
            let attempt = report.attempt;
            until(node, "the node is not Ready again", |heard| {
                is_ready(heard) && heard.report.as_ref().is_some_and(|r| r.attempt > attempt)
            })
            .await?;
            stays_ready(node, lines)
        }
        Step::Reboot => {
            let asked = [("InstanceId.1", node.instance.as_str())];
            let rebooted = node.stage.emulator.query("ec2", "RebootInstances", &asked).await;
            rebooted.map_err(|error| error.to_string())?;
            let boot = report.boot;
            until(node, "the node is not Ready in a new boot", |heard| {
                is_ready(heard) && heard.report.as_ref().is_some_and(|r| r.boot != boot)
            })
            .await?;
            stays_ready(node, lines)
        }
    }
}

fn is_ready(heard: &Heard) -> bool {
    heard.report.as_ref().is_some_and(|report| report.outcome == JoinOutcome::Ready)
}

/// Ready, and nothing refused it since the console had `lines` lines.
fn stays_ready(node: &Node<'_>, lines: usize) -> Result<(), String> {
    let heard = node.near();
    let since = heard.console.iter().skip(lines);
    if let Some(line) = since.into_iter().find(|line| line.outcome == JoinOutcome::Failed) {
        return Err(format!("the node was refused: {}", line.summary));
    }
    if is_ready(&heard) { Ok(()) } else { Err("the node is not Ready any more".into()) }
}

async fn until(
    node: &Node<'_>,
    otherwise: &str,
    condition: impl Fn(&Heard) -> bool,
) -> Result<(), String> {
    let deadline = Instant::now() + AGAIN;
    loop {
        let heard = node.near();
        if condition(&heard) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let named: Vec<String> = heard.named().iter().map(ToString::to_string).collect();
            return Err(format!("{otherwise}, named: {}", named.join(", ")));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn kill_join(node: &Node<'_>) -> Result<(), String> {
    use crate::systemctl_double::state::Store;
    use crate::systemctl_double::units;
    let root = node.root();
    let unit = units::find(&root, contract::names::UNIT_JOIN).ok_or("no join")?;
    let main = Store::of(&root).load(unit).main.ok_or("the join does not run")?;
    main.signal(Signal::SIGKILL);
    Ok(())
}
