//! Where every change of the join goes: report, journal, console, log, PID 1 and the channels.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use contract::join_report::{
    Agent, Gpus, Instance, JoinOutcome, PhaseReport, PhaseState, Repair, SCHEMA,
};
use contract::reason::Owner;
use contract::{Finding, JoinReport, Phase, Reason, Verdict};
use tokio::sync::watch;
use tokio::time::Instant;

use super::journal::{Journal, Progress};
use super::points::{self, Effect, Point};
use crate::host::console::Console;
use crate::host::{Deadline, Root, clock, notify};
use crate::report::redact::Redactor;
use crate::report::{self, VerdictKey};

/// How long a phase waits for something before the report names it as a reason. kubelet, the CNI's
/// pod and the device plugin take their time on every healthy node: naming them would cry wolf.
const fn name_a_wait_after(phase: Phase) -> Duration {
    Duration::from_secs(match phase {
        Phase::Register => 45,
        Phase::Ready => 90,
        Phase::Identify
        | Phase::Configure
        | Phase::Preflight
        | Phase::Drivers
        | Phase::Bootstrap
        | Phase::Cni => 2,
    })
}

/// The one place through which the join is heard.
#[derive(Debug)]
pub struct Recorder {
    root: Root,
    console: Option<Console>,
    reports: watch::Sender<JoinReport>,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    report: JoinReport,
    journal: Journal,
    begun: BTreeMap<Phase, Instant>,
    /// Until when a phase was last held up by what is no fault; its patience begins there.
    held: BTreeMap<Phase, Instant>,
    findings: BTreeMap<Phase, Vec<Finding>>,
    /// What the proving before found, until this one refutes it.
    open: Vec<Finding>,
    /// What stands over the whole join and belongs to no phase's verdict, by who says it.
    standing: BTreeMap<&'static str, Vec<Finding>>,
    said: Option<VerdictKey>,
    redactor: Redactor,
}

impl Recorder {
    /// A recorder for the boot `boot`.
    #[must_use]
    pub fn new(root: Root, boot: &str) -> Self {
        let journal = Journal::load(&root, boot);
        let report = empty_report(boot);
        let console = report::console::open(&root);
        let reports = watch::Sender::new(report.clone());
        let state = State {
            report,
            journal,
            begun: BTreeMap::new(),
            held: BTreeMap::new(),
            findings: BTreeMap::new(),
            open: Vec::new(),
            standing: BTreeMap::new(),
            said: None,
            redactor: Redactor::default(),
        };
        Self { root, console, reports, state: RefCell::new(state) }
    }

    /// Whether no proving of this boot has begun yet.
    pub fn is_first_life(&self) -> bool {
        self.state.borrow().journal.attempt == 0
    }

    /// A new proving begins; what the one before found stays open until it is refuted.
    pub fn begin_attempt(&self) -> u32 {
        let mut state = self.state.borrow_mut();
        let State { report, journal, begun, held, findings, open, standing, .. } = &mut *state;
        let failed = |phase: &PhaseReport| phase.state == PhaseState::Failed;
        if report.phases.iter().any(failed) {
            *open = std::mem::take(&mut report.reasons);
            open.retain(|finding| !standing.values().flatten().any(|s| s.reason == finding.reason));
        }
        journal.begin_attempt();
        journal.save(&self.root);
        points::reached(Point::ProvingBegun);
        report.attempt = journal.attempt;
        report.started = clock::now();
        report.phases.clear();
        begun.clear();
        held.clear();
        findings.clear();
        report.attempt
    }

    /// Who the node is.
    pub fn know(&self, change: impl FnOnce(&mut Instance)) {
        change(&mut self.state.borrow_mut().report.instance);
    }

    /// Which cluster and pool the node is of, and when it has to be registered.
    pub fn belongs_to(&self, cluster: &str, pool: &str, deadline: Option<Deadline>) {
        let mut state = self.state.borrow_mut();
        let report = &mut state.report;
        report.cluster = cluster.to_owned();
        report.pool = pool.to_owned();
        let at = deadline.map(|deadline| jiff::Timestamp::now() + deadline.remaining());
        report.deadline = at.map(clock::spell);
    }

    /// What is known of the GPUs.
    pub fn gpus(&self, gpus: Gpus) {
        self.state.borrow_mut().report.gpus = Some(gpus);
    }

    /// A repair that was tried, and whether it helped.
    pub fn repaired(&self, repair: Repair) {
        tracing::info!(
            reason = repair.reason,
            action = repair.action,
            helped = repair.helped,
            "repair"
        );
        self.state.borrow_mut().report.repairs.push(repair);
    }

    /// What was tried to mend a phase, all of it.
    pub fn mended(&self, phase: Phase, repairs: Vec<Repair>) {
        let is_of = |repair: &Repair| {
            let reason: Option<Reason> = repair.reason.parse().ok();
            reason.is_some_and(|reason| reason.entry().owner == Owner::Phase(phase))
        };
        let known = &mut self.state.borrow_mut().report.repairs;
        known.retain(|repair| !is_of(repair));
        known.extend(repairs);
    }

    /// How far an effect came in this boot.
    pub fn progress(&self, effect: Effect) -> Option<Progress> {
        self.state.borrow().journal.effects.get(&effect).cloned()
    }

    /// An effect is about to be made, for `key`.
    pub fn before(&self, effect: Effect, key: &str) {
        self.mark(effect, key, false);
        points::reached(Point::Before(effect));
    }

    /// An effect has been made. Saying so again is harmless.
    pub fn after(&self, effect: Effect, key: &str) {
        if self.progress(effect).is_some_and(|progress| progress.done && progress.key == key) {
            return;
        }
        points::reached(Point::Unrecorded(effect));
        self.mark(effect, key, true);
        points::reached(Point::After(effect));
    }

    fn mark(&self, effect: Effect, key: &str, done: bool) {
        let mut state = self.state.borrow_mut();
        state.journal.mark(effect, key, done);
        state.journal.save(&self.root);
    }

    /// A phase begins.
    pub fn begin(&self, phase: Phase) {
        {
            let mut state = self.state.borrow_mut();
            state.begun.insert(phase, Instant::now());
            state.journal.begin(phase);
            state.journal.save(&self.root);
            points::reached(Point::PhaseBegun(phase));
            state.report.phases.push(PhaseReport {
                phase,
                state: PhaseState::Running,
                started_at: clock::now(),
                ms: 0,
                detail: None,
            });
            state.report.phases.sort_by_key(|entry| entry.phase);
        }
        notify::status(&format!("{phase}: proving that {}", phase.proves()));
        self.publish();
    }

    /// How long a phase has been at its own work: since it began, or was last held up.
    pub fn elapsed(&self, phase: Phase) -> Duration {
        let state = self.state.borrow();
        let since = state.held.get(&phase).or_else(|| state.begun.get(&phase));
        since.map(Instant::elapsed).unwrap_or_default()
    }

    /// A phase waits for something. It is named once it has been waited for for a moment.
    pub fn waiting(&self, phase: Phase, finding: &Finding) {
        let finding = &self.state.borrow().redactor.clean(finding.clone());
        let is_named = self.elapsed(phase) >= name_a_wait_after(phase);
        let named = if is_named { vec![finding.clone()] } else { Vec::new() };
        if self.wait(phase, &finding.summary, named) {
            tracing::debug!(%phase, reason = %finding.reason, summary = finding.summary, "waiting");
        }
    }

    /// A phase waits for something that may take its time: nothing is wrong, nothing is named.
    pub fn held_up(&self, phase: Phase, by: &str) {
        self.state.borrow_mut().held.insert(phase, Instant::now());
        self.wait(phase, by, Vec::new());
    }

    /// True when something has changed.
    fn wait(&self, phase: Phase, summary: &str, named: Vec<Finding>) -> bool {
        {
            let mut state = self.state.borrow_mut();
            let elapsed = state.elapsed(phase);
            let entry = state.phase(phase, elapsed);
            let known = entry.detail.as_deref() == Some(summary);
            let was = std::mem::replace(&mut entry.state, PhaseState::Waiting);
            entry.detail = Some(summary.to_owned());
            let same = state.findings.get(&phase) == Some(&named);
            if known && was == PhaseState::Waiting && same {
                return false;
            }
            state.findings.insert(phase, named);
        }
        notify::status(&format!("{phase}: waiting: {summary}"));
        self.publish();
        true
    }

    /// What `source` says of the whole join, in place of what it said before.
    pub fn standing(&self, source: &'static str, findings: Vec<Finding>) {
        {
            let mut state = self.state.borrow_mut();
            let findings: Vec<Finding> =
                findings.into_iter().map(|f| state.redactor.clean(f)).collect();
            if state.standing.get(source).map_or(findings.is_empty(), |old| *old == findings) {
                return;
            }
            state.standing.insert(source, findings);
        }
        self.publish();
    }

    /// The node is put aside, for as long as somebody wants: no deadline runs meanwhile.
    pub fn put_aside(&self, phase: Phase, why: &str) {
        self.state.borrow_mut().report.deadline = None;
        self.held_up(phase, why);
        notify::ready();
    }

    /// A phase is not needed.
    pub fn skip(&self, phase: Phase, why: String) {
        self.settle(phase, PhaseState::Skipped, Some(why), Vec::new());
    }

    /// A phase has its verdict.
    pub fn end(&self, phase: Phase, verdict: &Verdict) {
        let (state, findings) = match verdict {
            Verdict::Pass => (PhaseState::Passed, Vec::new()),
            Verdict::Degraded(findings) => (PhaseState::Degraded, findings.clone()),
            Verdict::Fail(findings) => (PhaseState::Failed, findings.clone()),
            Verdict::Wait(finding) => (PhaseState::Failed, vec![(**finding).clone()]),
        };
        self.settle(phase, state, None, findings);
    }

    fn settle(&self, phase: Phase, to: PhaseState, detail: Option<String>, findings: Vec<Finding>) {
        {
            let mut state = self.state.borrow_mut();
            let findings: Vec<Finding> =
                findings.into_iter().map(|f| state.redactor.clean(f)).collect();
            let elapsed = state.elapsed(phase);
            let entry = state.phase(phase, elapsed);
            entry.state = to;
            entry.detail = detail;
            state.findings.insert(phase, findings);
            state.open.retain(|finding| finding.phase != Some(phase));
            let failed = to == PhaseState::Failed;
            state.journal.end(phase, !failed);
            state.journal.save(&self.root);
            points::reached(Point::PhaseEnded(phase));
            tracing::info!(%phase, state = ?to, ms = elapsed.as_millis(), "phase ended");
        }
        self.publish();
    }

    /// A proving that came to the end of the join refutes all that is still open.
    pub fn refute_the_rest(&self) {
        self.state.borrow_mut().open.clear();
        self.publish();
    }

    /// What the user data calls a secret is said nowhere.
    pub fn keep_secret(&self, user_data: &[u8]) {
        self.state.borrow_mut().redactor.learn(&String::from_utf8_lossy(user_data));
    }

    /// Takes secrets out of what is said.
    pub fn redactor(&self) -> Redactor {
        self.state.borrow().redactor.clone()
    }

    /// The report as it stands.
    pub fn report(&self) -> JoinReport {
        self.state.borrow().report.clone()
    }

    /// How the join stands.
    pub fn outcome(&self) -> JoinOutcome {
        self.state.borrow().report.outcome
    }

    /// The reports, latest first to be seen, for the channels.
    pub fn subscribe(&self) -> watch::Receiver<JoinReport> {
        self.reports.subscribe()
    }

    /// The console is given a moment to take the last line.
    pub fn flush(&self, limit: Duration) {
        if let Some(console) = &self.console
            && !console.flush(limit)
        {
            tracing::debug!("the console has not taken the last line");
        }
    }

    fn publish(&self) {
        let mut state = self.state.borrow_mut();
        state.rank();
        state.report.updated = clock::now();
        report::file::write(&self.root, &state.report);
        self.reports.send_replace(state.report.clone());
        let key = VerdictKey::of(&state.report);
        if state.said.as_ref() != Some(&key) {
            state.said = Some(key);
            log_verdict(&state.report);
            if let Some(console) = &self.console {
                report::console::say(console, &state.report);
            }
        }
    }
}

impl State {
    fn elapsed(&self, phase: Phase) -> Duration {
        self.begun.get(&phase).map(Instant::elapsed).unwrap_or_default()
    }

    fn phase(&mut self, phase: Phase, elapsed: Duration) -> &mut PhaseReport {
        let phases = &mut self.report.phases;
        let index = phases.iter().position(|entry| entry.phase == phase).unwrap_or_else(|| {
            // Skipped without having begun.
            let started_at = clock::now();
            let state = PhaseState::Running;
            let index = phases.partition_point(|entry| entry.phase < phase);
            let entry = PhaseReport { phase, state, started_at, ms: 0, detail: None };
            phases.insert(index, entry);
            index
        });
        let entry = &mut phases[index];
        entry.ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        entry
    }

    fn rank(&mut self) {
        let is_found = |phase: Phase| self.findings.get(&phase).is_some_and(|f| !f.is_empty());
        let open = self.open.iter().filter(|finding| !finding.phase.is_some_and(is_found));
        let mut found: Vec<Finding> =
            self.findings.values().flatten().chain(open).cloned().collect();
        for finding in self.standing.values().flatten() {
            if !found.iter().any(|other| other.reason == finding.reason) {
                found.push(finding.clone());
            }
        }
        self.report.reasons = contract::verdict::rank(found);
        self.report.outcome = report::outcome(&self.report.phases, &self.open);
        let is_doomed = self.standing.values().flatten().any(|finding| finding.reason.is_hard());
        if is_doomed && self.report.outcome == JoinOutcome::Joining {
            self.report.outcome = JoinOutcome::Failed;
        }
    }
}

fn empty_report(boot: &str) -> JoinReport {
    JoinReport {
        schema: SCHEMA.into(),
        cluster: String::new(),
        pool: String::new(),
        instance: Instance::default(),
        agent: Agent { version: env!("CARGO_PKG_VERSION").into() },
        boot: boot.into(),
        attempt: 0,
        started: String::new(),
        deadline: None,
        updated: String::new(),
        phases: Vec::new(),
        reasons: Vec::new(),
        repairs: Vec::new(),
        gpus: None,
        outcome: JoinOutcome::Joining,
    }
}

/// The one place where a change of verdict is logged; journald keeps the two fields.
fn log_verdict(report: &JoinReport) {
    let cause = report.cause();
    let reason = cause.map_or("none", |finding| finding.reason.as_str());
    let phase = cause.and_then(|finding| finding.phase).or(report.current_phase());
    let phase = phase.map_or("none", Phase::label);
    let summary = cause.map_or("", |finding| finding.summary.as_str());
    let (outcome, attempt) = (report.outcome.label(), report.attempt);
    if report.outcome == JoinOutcome::Failed {
        tracing::error!(
            rollcall_reason = reason,
            rollcall_phase = phase,
            attempt,
            summary,
            "join {outcome}"
        );
    } else {
        tracing::info!(
            rollcall_reason = reason,
            rollcall_phase = phase,
            attempt,
            summary,
            "join {outcome}"
        );
    }
}

#[cfg(test)]
mod tests;
