//! One phase: gather facts, judge them, look again while something can still heal.

use std::time::Duration;

use contract::{Finding, Phase, Reason, Verdict};
use tokio::time::{sleep, timeout_at};

use super::enforce::Gate;
use super::recorder::Recorder;
use crate::host::Deadline;

/// Between two looks: short at first, for most waits are short.
const FIRST_POLL: Duration = Duration::from_millis(100);
const LAST_POLL: Duration = Duration::from_millis(500);

/// A look that has less time than this is not begun: what it cannot read in time would pass for
/// unknown, and hide what the look before has seen.
const LEAST_LOOK: Duration = Duration::from_secs(1);

/// How much longer than its deadline a gathering may take before it is given up: it has the
/// deadline itself, so this catches only what ignores it.
const OVERTIME: Duration = Duration::from_secs(3);

/// A phase's last facts, when there are any, and its verdict.
#[derive(Debug)]
pub struct Proof<F> {
    /// What was found; none when the gathering never ended.
    pub facts: Option<F>,
    /// Pass, Degraded or Fail.
    pub verdict: Verdict,
}

/// What is proven, for whom.
#[derive(Clone, Copy, Debug)]
pub struct Matter<'a> {
    /// Where it is recorded.
    pub recorder: &'a Recorder,
    /// What decides about the gate.
    pub gate: &'a Gate,
    /// The phase, which has begun.
    pub phase: Phase,
}

/// Proves a phase that has begun: ends with a verdict, and records it.
pub async fn prove<F>(
    recorder: &Recorder,
    gate: &Gate,
    phase: Phase,
    deadline: Deadline,
    gather: impl AsyncFnMut() -> F,
    judge: impl Fn(&F) -> Verdict,
) -> Proof<F> {
    let (facts, verdict) = look(recorder, phase, deadline, gather, judge).await;
    let verdict = gate.enforce(verdict, phase).await;
    recorder.end(phase, &verdict);
    Proof { facts, verdict }
}

/// The same for a phase that can be mended: after each verdict `mend` may change the node, and then
/// says until when it is looked at again. What is recorded is the verdict that stands in the end.
pub async fn prove_and_mend<F>(
    matter: Matter<'_>,
    mut deadline: Deadline,
    mut gather: impl AsyncFnMut() -> F,
    judge: impl Fn(&F) -> Verdict,
    mut mend: impl AsyncFnMut(&F, &Verdict) -> Option<Deadline>,
) -> Proof<F> {
    let Matter { recorder, gate, phase } = matter;
    loop {
        let (facts, verdict) = look(recorder, phase, deadline, &mut gather, &judge).await;
        let verdict = gate.enforce(verdict, phase).await;
        let again = match &facts {
            Some(facts) => mend(facts, &verdict).await,
            None => None,
        };
        match again {
            Some(later) => deadline = later,
            None => {
                recorder.end(phase, &verdict);
                return Proof { facts, verdict };
            }
        }
    }
}

async fn look<F>(
    recorder: &Recorder,
    phase: Phase,
    deadline: Deadline,
    mut gather: impl AsyncFnMut() -> F,
    judge: impl Fn(&F) -> Verdict,
) -> (Option<F>, Verdict) {
    let mut poll = FIRST_POLL;
    let mut waited_for: Option<Finding> = None;
    loop {
        let Ok(facts) = timeout_at(deadline.instant() + OVERTIME, gather()).await else {
            return (None, Verdict::Fail(vec![waited_for.unwrap_or_else(|| exceeded(phase))]));
        };
        match judge(&facts) {
            Verdict::Wait(finding) if deadline.has_passed() => {
                // The deadline has cut this look short: what the one before saw is worth more.
                let finding = waited_for.unwrap_or(*finding);
                return (Some(facts), Verdict::Fail(vec![finding]));
            }
            Verdict::Wait(finding) => {
                recorder.waiting(phase, &finding);
                if deadline.remaining() < poll + LEAST_LOOK {
                    sleep(deadline.remaining()).await;
                    return (Some(facts), Verdict::Fail(vec![*finding]));
                }
                waited_for = Some(*finding);
            }
            verdict => return (Some(facts), verdict),
        }
        sleep(poll).await;
        poll = poll.mul_f64(1.5).min(LAST_POLL);
    }
}

fn exceeded(phase: Phase) -> Finding {
    let summary = format!("the time for the phase {phase} is used up, and it has not said why");
    Finding::new(Reason::DeadlineExceeded, phase, summary)
}

#[cfg(test)]
mod tests {
    use contract::AgentConfig;

    use super::*;
    use crate::host::Root;

    fn recorder() -> (tempfile::TempDir, Recorder) {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::new(Root::new(dir.path()), "boot");
        recorder.begin_attempt();
        (dir, recorder)
    }

    fn wait() -> Verdict {
        Verdict::Wait(Box::new(Finding::new(Reason::CniNotReady, Phase::Ready, "not yet")))
    }

    #[tokio::test]
    async fn looks_again_until_it_heals() {
        let (_dir, recorder) = recorder();
        let gate = Gate::of(AgentConfig::new("prod", "h100"));
        let deadline = Deadline::within(Duration::from_secs(20));
        recorder.begin(Phase::Ready);
        let mut looks = 0;
        let gather = async || {
            looks += 1;
            looks
        };
        let judge = |looks: &i32| if *looks < 3 { wait() } else { Verdict::Pass };
        let proof = prove(&recorder, &gate, Phase::Ready, deadline, gather, judge).await;
        assert_eq!((proof.facts, proof.verdict), (Some(3), Verdict::Pass));
    }

    #[tokio::test]
    async fn a_wait_becomes_a_fail_at_the_deadline() {
        let (_dir, recorder) = recorder();
        let gate = Gate::of(AgentConfig::new("prod", "h100"));
        let deadline = Deadline::within(Duration::from_millis(150));
        recorder.begin(Phase::Ready);
        let proof = prove(&recorder, &gate, Phase::Ready, deadline, async || (), |()| wait()).await;
        assert!(
            matches!(proof.verdict, Verdict::Fail(found) if found[0].reason == Reason::CniNotReady)
        );
    }

    #[tokio::test]
    async fn a_look_that_the_deadline_cuts_short_does_not_hide_the_cause() {
        let (_dir, recorder) = recorder();
        let gate = Gate::of(AgentConfig::new("prod", "h100"));
        let deadline = Deadline::within(LEAST_LOOK + Duration::from_millis(300));
        recorder.begin(Phase::Ready);
        let mut looks = 0;
        let gather = async || {
            looks += 1;
            if looks > 1 {
                sleep(deadline.remaining()).await;
            }
            deadline.has_passed()
        };
        let judge = |is_cut: &bool| {
            let reason = if *is_cut { Reason::NodeNotReady } else { Reason::CniNotReady };
            Verdict::Wait(Box::new(Finding::new(reason, Phase::Ready, "seen")))
        };
        let proof = prove(&recorder, &gate, Phase::Ready, deadline, gather, judge).await;
        assert!(
            matches!(proof.verdict, Verdict::Fail(found) if found[0].reason == Reason::CniNotReady)
        );
    }

    #[tokio::test]
    async fn a_gathering_that_never_ends_is_given_up() {
        let (_dir, recorder) = recorder();
        let gate = Gate::of(AgentConfig::new("prod", "h100"));
        let deadline = Deadline::within(Duration::from_millis(50));
        recorder.begin(Phase::Cni);
        let gather = async || std::future::pending::<()>().await;
        let judge = |(): &()| Verdict::Pass;
        let proof = prove(&recorder, &gate, Phase::Cni, deadline, gather, judge).await;
        assert!(proof.facts.is_none());
        assert!(matches!(proof.verdict, Verdict::Fail(found)
            if found[0].reason == Reason::DeadlineExceeded && found[0].phase == Some(Phase::Cni)));
    }
}
