//! Keeps what is believed of the node's health: reads the kernel log, takes the sampler's rounds, asks
//! [`super::health`] what follows, and has that written down, told and done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use contract::ErrorChain;
use contract::agent_config::WatchSettings;
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::evidence::{self, Evidence};
use super::health::{self, Action, Health, Logged, Moment, Notice, Rules, Seen};
use super::sampler::{self, NvmlXid, Observed};
use super::store::{Kept, Store};
use super::{process, reset};
use crate::gpu::log_line::{self, LogLine};
use crate::gpu::xid::{Merge, Parser, Record, Table};
use crate::host::kmsg::{KernelLog, Message};
use crate::host::{Root, clock};

/// Between two looks at the kernel log.
const TICK: Duration = Duration::from_millis(250);
/// Before a round that confirms another: what was an accident has passed by then.
const SOON: Duration = Duration::from_secs(1);
/// Between two tries to open it.
const REOPEN: Duration = Duration::from_secs(5);

/// What everybody else sees.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// What was observed.
    pub observed: Arc<Observed>,
    /// What is believed.
    pub health: Health,
    /// Whether the kernel log can be read.
    pub reads_log: bool,
}

/// Where what follows goes.
#[derive(Debug)]
pub(super) struct Outlets {
    /// What everybody else sees.
    pub(super) view: watch::Sender<Arc<View>>,
    /// Events on the Node.
    pub(super) notices: mpsc::Sender<Notice>,
    /// A round is wanted now.
    pub(super) look_again: Arc<Notify>,
}

/// Keeps it until the sampler is gone.
pub(super) async fn run(
    root: Root,
    mut latest: watch::Receiver<Arc<Observed>>,
    mut told: mpsc::Receiver<NvmlXid>,
    outlets: Outlets,
) {
    let mut keeper = Keeper::new(root, outlets);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = latest.changed() => if changed.is_err() { return },
            Some(xid) = told.recv() => {
                let NvmlXid { pci, code } = xid;
                let detail = "NVML tells of it".to_owned();
                let record = Record { pci, code, detail, ..Record::default() };
                keeper.merge.told(record, now());
            }
        }
        let observed = Arc::clone(&latest.borrow_and_update());
        keeper.look(observed);
    }
}

struct Keeper {
    root: Root,
    outlets: Outlets,
    store: Store,
    kept: Kept,
    rules: Rules,
    settings: WatchSettings,
    log: Log,
    merge: Merge,
    /// The last round that was taken, and what it showed.
    round: u64,
    observed: Arc<Observed>,
    evidence: Option<Evidence>,
    reset_seen: String,
}

/// The kernel log, and what is being read of it.
#[derive(Default)]
struct Log {
    open: Option<KernelLog>,
    tried: Option<Instant>,
    parser: Parser,
    /// Whether what comes now was there before us: its processes are not asked for any more.
    is_past: bool,
}

impl Keeper {
    fn new(root: Root, outlets: Outlets) -> Self {
        let (store, kept, history) = Store::open(&root);
        Self {
            rules: Rules { history, ..Rules::default() },
            store,
            kept,
            settings: WatchSettings::default(),
            log: Log::default(),
            merge: Merge::default(),
            round: 0,
            observed: Arc::default(),
            evidence: None,
            reset_seen: clock::now(),
            outlets,
            root,
        }
    }

    fn look(&mut self, observed: Arc<Observed>) {
        let News { mut xids, lines } = self.logged();
        let due = self.merge.due(now());
        xids.extend(due.into_iter().map(|record| self.seen(record, None)));
        let is_news = !Arc::ptr_eq(&observed, &self.observed);
        if is_news {
            self.configure();
            self.evidence = evidence::of(&observed, self.log.open.is_some());
            self.observed = Arc::clone(&observed);
        }
        if !is_news && xids.is_empty() && lines.is_empty() {
            return;
        }
        let actions = match self.evidence.clone() {
            Some(evidence) => {
                // One that came before anybody knew what the node should have is news when that is known:
                // what it counts is where totals start, and nothing is called well that was not looked at.
                let is_round = std::mem::replace(&mut self.round, observed.round) != observed.round;
                self.step(&evidence, is_round, &xids, &lines)
            }
            // What is logged on a node of which nobody knows what it is yet is kept for later.
            None if !xids.is_empty() || !lines.is_empty() => {
                self.step(&unknown(), false, &xids, &lines)
            }
            None => Vec::new(),
        };
        self.act(actions);
        self.tell_of_join();
        self.reset_ended();
        self.store.keep(&self.kept);
        self.outlets.view.send_replace(Arc::new(View {
            observed,
            health: self.kept.health.clone(),
            reads_log: self.log.open.is_some(),
        }));
    }

    fn step(
        &mut self,
        evidence: &Evidence,
        is_round: bool,
        xids: &[Seen],
        lines: &[Logged],
    ) -> Vec<Action> {
        let look = evidence.look(is_round, xids, lines);
        let before = std::mem::take(&mut self.kept.health);
        let (after, actions) = health::step(before, &look, &self.rules, now());
        self.kept.health = after;
        actions
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Tell(notice) => self.tell(notice),
                Action::LookAgain => self.outlets.look_again.notify_one(),
                Action::LookSoon => {
                    let look_again = Arc::clone(&self.outlets.look_again);
                    tokio::spawn(async move {
                        tokio::time::sleep(SOON).await;
                        look_again.notify_one();
                    });
                }
                Action::Remember { key } => {
                    if self.rules.history.remember(&key) {
                        self.store.remember(&self.rules.history);
                    }
                }
                Action::Reset { pci } => match reset::ask(&self.root, &pci) {
                    Ok(()) => {
                        let message =
                            format!("GPU {pci} asks for a reset: asked for, if nothing runs there");
                        let reason = "GpuReset".to_owned();
                        self.tell(Notice { reason, message, is_warning: false });
                    }
                    Err(error) => {
                        tracing::warn!(error = %ErrorChain(&error), "no reset can be asked for");
                    }
                },
            }
        }
    }

    fn tell(&self, notice: Notice) {
        let Notice { reason, message, is_warning } = &notice;
        if *is_warning {
            tracing::warn!(ROLLCALL_REASON = reason, "{message}");
        } else {
            tracing::info!(ROLLCALL_REASON = reason, "{message}");
        }
        if self.outlets.notices.try_send(notice).is_err() {
            tracing::debug!("too many events wait already");
        }
    }

    /// The join's reasons, once there is a Node to say them on.
    fn tell_of_join(&mut self) {
        let observed = Arc::clone(&self.observed);
        let Some(report) = &observed.snapshot.join else { return };
        if evidence::is_registered(&observed) {
            let actions = self.kept.health.tell_of_join(report.attempt, &report.reasons);
            self.act(actions);
        }
    }

    fn reset_ended(&mut self) {
        reset::give_up(&self.root);
        if let Some(outcome) = reset::result(&self.root, &self.reset_seen) {
            self.reset_seen.clone_from(&outcome.at);
            let message = format!("GPU {}: {}", outcome.pci, outcome.detail);
            let reason = "GpuReset".to_owned();
            self.tell(Notice { reason, message, is_warning: !outcome.done });
            self.outlets.look_again.notify_one();
        }
    }

    fn configure(&mut self) {
        let settings = sampler::settings(&self.root);
        if settings != self.settings {
            self.rules.xids = Table::new(settings.xids.clone());
            self.rules.show = settings.show_reasons.clone().into_iter().collect::<BTreeMap<_, _>>();
            self.rules.reset = settings.gpu_reset;
            self.settings = settings;
        }
    }

    /// What has been logged since the last look.
    fn logged(&mut self) -> News {
        if self.log.open.is_none() && self.log.tried.is_none_or(|at| at.elapsed() >= REOPEN) {
            self.log.tried = Some(Instant::now());
            match KernelLog::open(&self.root) {
                Ok(log) => {
                    self.log = Log { open: Some(log), is_past: true, ..Log::default() };
                }
                Err(error) => {
                    tracing::debug!(error = %ErrorChain(&error), "the kernel log cannot be read");
                }
            }
        }
        let Some(log) = &mut self.log.open else { return News::default() };
        let messages = match log.read() {
            Ok(messages) => messages,
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "the kernel log cannot be read any more");
                self.log.open = None;
                return News::default();
            }
        };
        let is_past = self.log.is_past;
        self.log.is_past = is_past && !messages.is_empty();
        let (mut seen, mut lines) = (Vec::new(), Vec::new());
        for message in messages {
            // Numbers begin anew where the log does; then all of it is new.
            let known = self.kept.kernel_log.is_some_and(|last| message.number <= last);
            if is_past && known {
                continue;
            }
            self.kept.kernel_log = Some(message.number);
            if let Some(line) = log_line::read(&message.text) {
                lines.push(self.line(line, is_past));
            }
            for record in self.log.parser.take(&message.text) {
                self.merge.logged(&record, now());
                seen.push((record, message.clone()));
            }
        }
        let seen = seen.into_iter();
        let xids = seen.map(|(record, message)| self.seen(record, is_past.then_some(&message)));
        News { xids: xids.collect(), lines }
    }

    fn line(&self, line: LogLine, is_past: bool) -> Logged {
        let process = match &line {
            LogLine::NcclCrash { pid, name, .. } if !is_past => {
                Some(process::find(&self.root, *pid, Some(name)).said)
            }
            LogLine::NcclCrash { .. } | LogLine::Pcie { .. } => None,
        };
        Logged { line, process }
    }

    /// A record with its process, unless it is of the past: its number may be somebody else's by now.
    fn seen(&self, record: Record, past: Option<&Message>) -> Seen {
        let process = match (record.pid, past) {
            (Some(pid), None) => Some(process::find(&self.root, pid, record.name.as_deref())),
            _ => None,
        };
        let ago = past.map_or(Duration::ZERO, |message| now().saturating_sub(message.at));
        let when = Timestamp::now().checked_sub(ago).map(|at| format!("{at:.0}"));
        let (pod, said) = process.map_or((None, None), |process| (process.pod, Some(process.said)));
        Seen { record, process: said, pod, when: when.unwrap_or_default() }
    }
}

/// What has been logged.
#[derive(Default)]
struct News {
    xids: Vec<Seen>,
    lines: Vec<Logged>,
}

/// Of a node of which nothing is known yet but what its kernel says.
fn unknown() -> Evidence {
    Evidence {
        blind: Some("what the node should have is not known yet".to_owned()),
        ..Evidence::default()
    }
}

/// Since the boot. Every process of the boot reads the same clock.
fn now() -> Moment {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}
