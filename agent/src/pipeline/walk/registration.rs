//! Phase 7: what must hold right before kubelet may start, and kubelet's start.

use std::time::Duration;

use contract::names::NODEADM_DROPIN_DIR;
use contract::{Finding, Phase, Reason, Verdict};
use tokio::time::sleep;

use super::{Anew, Closed, Known, Node, Walk};
use crate::host::Deadline;
use crate::host::files::FileError;
use crate::phases::register::{Admission, Proofs};
use crate::phases::{bootstrap, cloud_init, configure, notices, register};
use crate::pipeline::points::Effect;
use crate::pipeline::prove::prove;

/// Between two looks at cloud-init: short at first, for most scripts are.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_millis(500);

/// How often the configuration may change under the join before that is a fault.
const CHANGES_MAX: u32 = 5;

impl Walk<'_> {
    /// Lets kubelet start and waits for the Node object; gives its name.
    pub(super) async fn register(
        &self,
        known: &Known,
        proofs: &Proofs,
        username: &Option<String>,
        attempt: u32,
    ) -> Result<String, Closed> {
        let phase = Phase::Register;
        let Node { root, systemd, boot, .. } = self.node;
        self.recorder.begin(phase);
        let name = bootstrap::kubelet_node_name(root).unwrap_or_else(|| known.name.clone());
        self.recorder.know(|instance| instance.name.clone_from(&name));
        if let Some(closed) = self.before_kubelet(known, &name, username).await {
            self.recorder.end(phase, &closed);
            return Err(Closed);
        }
        if self.anew.get().is_some() {
            return Err(Closed);
        }
        let deadline = known.budget.deadline(phase);
        if let Err(error) = self.admit(proofs, attempt) {
            let what = contract::ErrorChain(&error).to_string();
            let finding = Finding::new(Reason::NodeadmRunFailed, phase, what);
            self.recorder.end(phase, &Verdict::Fail(vec![finding]));
            return Err(Closed);
        }
        let mut starting = match known.kubelet_runs {
            true => register::Starting::not_needed(),
            false => {
                self.recorder.before(Effect::StartKubelet, boot);
                register::Starting::begin(systemd, deadline)
            }
        };
        let elapsed = || self.recorder.elapsed(phase);
        let gather = async || {
            let run = starting.progress().await;
            register::gather(systemd, &known.kube, &name, run, elapsed(), deadline).await
        };
        let judge = |facts: &register::Facts| {
            let verdict = register::verdict(facts, &name, boot, elapsed());
            if verdict == Verdict::Pass {
                self.recorder.after(Effect::StartKubelet, boot);
            }
            verdict
        };
        let proof = prove(self.recorder, &known.gate, phase, deadline, gather, judge).await;
        if proof.verdict.is_open() { Ok(name) } else { Err(Closed) }
    }

    /// Opens kubelet's assertion, once in a boot.
    fn admit(&self, proofs: &Proofs, attempt: u32) -> Result<(), FileError> {
        let Node { root, boot, .. } = self.node;
        if !register::is_admitted(root, boot) {
            self.recorder.before(Effect::Admit, boot);
            register::admit(root, proofs, &Admission { boot: boot.clone(), attempt })?;
        }
        self.recorder.after(Effect::Admit, boot);
        Ok(())
    }

    /// What must hold right before kubelet starts and may have changed since: cloud-init is done,
    /// what its scripts left behind is legal and is what was proven, and kubelet's name is the one
    /// that is known. Gives the verdict that closes the gate.
    async fn before_kubelet(
        &self,
        known: &Known,
        name: &str,
        username: &Option<String>,
    ) -> Option<Verdict> {
        if known.kubelet_runs {
            return None;
        }
        let stuck = self.cloud_init(known).await;
        if !stuck.is_open() {
            return Some(stuck);
        }
        let announced = Verdict::of(self.announced().await);
        let announced = known.gate.enforce(announced, Phase::Configure).await;
        if !announced.is_open() || self.anew.get().is_some() {
            return (!announced.is_open()).then_some(announced);
        }
        let facts = configure::gather(&self.node.root, known.user_data.as_deref());
        let facts = configure::with_additions(&self.node.root, facts, known.user_data.as_deref());
        let verdict = known.gate.enforce(configure::verdict(&facts), Phase::Configure).await;
        if !verdict.is_open() {
            return Some(verdict);
        }
        if known.is_outdated(&facts) {
            return self.reconfigured();
        }
        let finding = register::name_finding(username.as_deref(), Some(name))?;
        let verdict = known.gate.enforce(Verdict::Fail(vec![finding]), Phase::Configure).await;
        (!verdict.is_open()).then_some(verdict)
    }

    /// A script has changed the configuration since it was proven and written: everything is proven
    /// again with what it says now, within the same time. Not for ever.
    fn reconfigured(&self) -> Option<Verdict> {
        let changes = self.changes.get() + 1;
        self.changes.set(changes);
        if changes <= CHANGES_MAX {
            tracing::info!(changes, "the configuration has changed: proving it");
            self.anew.set(Some(Anew::Reconfigured));
            return None;
        }
        self.changes.set(0);
        let what =
            format!("the node's configuration has changed {changes} times while it was proven");
        let finding = Finding::new(Reason::NodeConfigInvalid, Phase::Configure, what);
        let finding =
            finding.with_evidence(format!("something keeps writing to {NODEADM_DROPIN_DIR}"));
        Some(Verdict::Fail(vec![finding]))
    }

    /// What EC2 announces. An instance in a warm pool stays here until it is put in service, for
    /// days perhaps; then everything is proven once more.
    async fn announced(&self) -> Vec<Finding> {
        loop {
            let facts = notices::gather(&self.node.imds, Deadline::within(notices::ROUND)).await;
            let Some(state) = facts.warm_pool() else {
                let findings = notices::findings(&facts);
                self.recorder.standing(notices::SOURCE, findings.clone());
                return findings;
            };
            let why = format!("proven, and put aside in the warm pool (`{state}`)");
            self.recorder.put_aside(Phase::Register, &why);
            self.anew.set(Some(Anew::LeftWarmPool));
            sleep(notices::WARM_POLL).await;
        }
    }

    /// Waits for cloud-init's last stage; ends with Pass or Fail.
    async fn cloud_init(&self, known: &Known) -> Verdict {
        let limit = known.gate.config.deadlines.cloud_init();
        // A later proving has no whole time: one that waits for its turn has as long as one that runs.
        let whole = known.budget.registration().unwrap_or_else(|| Deadline::within(limit));
        let mut poll = FIRST_LOOK;
        // What was done when the proving began is done.
        let mut facts = cloud_init::Facts::of(known.units.scripts.clone(), None);
        loop {
            match cloud_init::verdict(&facts, limit, whole.has_passed()) {
                Verdict::Wait(finding) => {
                    self.recorder.held_up(Phase::Register, &finding.summary);
                }
                verdict => return verdict,
            }
            sleep(poll).await;
            poll = (poll * 2).min(LAST_LOOK);
            facts = cloud_init::gather(&self.node.root, &self.node.systemd).await;
        }
    }
}
