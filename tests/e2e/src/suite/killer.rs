//! SIGKILL in a phase of one's choice, without the agent's help and whatever the machine's speed.
//!
//! The join writes its journal before and after each phase. The kernel asks us before it lets a file
//! in the journal's directory be opened (fanotify's permission events, root's), and the join stands
//! still until we answer: while its report says that the phase is going on, the answer is SIGKILL.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use contract::join_report::PhaseState;
use contract::names::{ADMITTED_PATH, JOIN_STATE_DIR, REPORT_PATH};
use contract::{JoinReport, Phase};
use nix::fcntl::AT_FDCWD;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags,
    Response,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::node::Node;

/// How long the phase may keep us waiting.
const LIMIT: Duration = Duration::from_secs(180);

/// Waits for the node's join to be in `phase`, and kills it there: from `register` on, once kubelet
/// has been let in.
///
/// # Errors
/// When the kernel does not let us watch, or the join is never in that phase.
pub async fn kill_in(phase: Phase, node: &Node) -> anyhow::Result<()> {
    let (journal, report) = (node.path(JOIN_STATE_DIR), node.path(REPORT_PATH));
    let admitted = (phase >= Phase::Register).then(|| node.path(ADMITTED_PATH));
    let watch = watch(&journal)?;
    let is_time =
        move || is_in(phase, &report) && admitted.as_ref().is_none_or(|path| path.exists());
    let killing = tokio::task::spawn_blocking(move || {
        hold_and_kill(&watch, is_time).with_context(|| format!("the join was not in {phase}"))
    });
    killing.await.context("the killer has panicked")?
}

/// Watches the directory, which is made if the join has not done so yet.
fn watch(directory: &Path) -> anyhow::Result<Fanotify> {
    let what = || format!("could not watch `{}`", directory.display());
    std::fs::create_dir_all(directory).with_context(what)?;
    let flags = InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK;
    let group = Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC);
    let group = group.context("fanotify needs root")?;
    let mask = MaskFlags::FAN_OPEN_PERM | MaskFlags::FAN_EVENT_ON_CHILD;
    group.mark(MarkFlags::FAN_MARK_ADD, mask, AT_FDCWD, Some(directory)).with_context(what)?;
    Ok(group)
}

fn hold_and_kill(watch: &Fanotify, is_time: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        let mut ready = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(200_u8))? == 0 {
            continue;
        }
        for event in watch.read_events().context("could not read what is asked of us")? {
            if answer(watch, &event, is_time())? {
                return Ok(());
            }
        }
    }
    bail!("not within {} s", LIMIT.as_secs())
}

/// Answers one question; true when the answer was SIGKILL.
fn answer(watch: &Fanotify, event: &FanotifyEvent, now: bool) -> anyhow::Result<bool> {
    let Some(file) = event.fd() else { return Ok(false) };
    let response = if now {
        kill(Pid::from_raw(event.pid()), Signal::SIGKILL).context("could not kill the join")?;
        Response::FAN_DENY
    } else {
        Response::FAN_ALLOW
    };
    watch.write_response(FanotifyResponse::new(file, response))?;
    Ok(now)
}

/// The report lies in another directory than the one that is watched: reading it asks nobody.
fn is_in(phase: Phase, report: &Path) -> bool {
    let report = std::fs::read(report).ok();
    let report = report.and_then(|bytes| serde_json::from_slice::<JoinReport>(&bytes).ok());
    let phases = report.map(|report| report.phases).unwrap_or_default();
    phases.iter().any(|entry| {
        entry.phase == phase && matches!(entry.state, PhaseState::Running | PhaseState::Waiting)
    })
}
