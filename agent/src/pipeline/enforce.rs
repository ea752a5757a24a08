//! Whether a closed gate keeps the node out, or only says that it would.

use contract::agent_config::Enforce;
use contract::{AgentConfig, Finding, Phase, PoolPolicy, Reason, Verdict};

use super::policy::PolicySource;

/// What decides about a gate that is about to close.
#[derive(Clone, Debug)]
pub struct Gate {
    /// The node's own configuration.
    pub config: AgentConfig,
    /// The pool's policy; none while it is not known which pool that is.
    pub policy: Option<PolicySource>,
}

impl Gate {
    /// A gate under the node's configuration alone.
    #[must_use]
    pub const fn of(config: AgentConfig) -> Self {
        Self { config, policy: None }
    }

    /// The verdict under the pool's enforcement. Asks for the policy only when the gate would close.
    pub async fn enforce(&self, verdict: Verdict, phase: Phase) -> Verdict {
        if !(matches!(verdict, Verdict::Fail(_)) && phase.is_before_kubelet()) {
            return verdict;
        }
        let policy = match &self.policy {
            Some(source) => source.read().await,
            None => PoolPolicy::default(),
        };
        enforce(verdict, phase, &self.config, &policy)
    }
}

/// The verdict under the pool's enforcement: a gate whose hard findings are all only observed, or
/// have an open breaker, is open, and says so. After registration nothing is kept out, so nothing is
/// changed.
#[must_use]
pub fn enforce(
    verdict: Verdict,
    phase: Phase,
    config: &AgentConfig,
    policy: &PoolPolicy,
) -> Verdict {
    let Verdict::Fail(findings) = verdict else { return verdict };
    let hard = || findings.iter().filter(|finding| finding.reason.is_hard());
    let is_open =
        |finding: &Finding| is_broken(finding, policy) || is_observed(finding, config, policy);
    if !phase.is_before_kubelet() || !hard().all(is_open) {
        return Verdict::Fail(findings);
    }
    let broken: Vec<Finding> = hard()
        .filter(|finding| is_broken(finding, policy))
        .map(|finding| breaker_open(finding, phase, policy))
        .collect();
    Verdict::Degraded(findings.into_iter().map(observed).chain(broken).collect())
}

fn is_observed(finding: &Finding, config: &AgentConfig, policy: &PoolPolicy) -> bool {
    let reason = &finding.reason;
    let by_reason = policy.enforce_reasons.get(reason).or(config.enforce_reasons.get(reason));
    let is_new = reason.known().is_some_and(Reason::is_observed);
    let whole = policy.enforce.unwrap_or(config.enforce);
    let whole = if is_new { Enforce::Observe } else { whole };
    *by_reason.unwrap_or(&whole) == Enforce::Observe
}

fn is_broken(finding: &Finding, policy: &PoolPolicy) -> bool {
    policy.breakers.contains_key(&finding.reason)
}

fn breaker_open(finding: &Finding, phase: Phase, policy: &PoolPolicy) -> Finding {
    let reason = &finding.reason;
    let summary = match policy.breakers.get(reason) {
        Some(breaker) if breaker.nodes > 0 => format!(
            "the breaker for {reason} is open: {} of {} nodes of the pool failed with it",
            breaker.failed, breaker.nodes
        ),
        _ => format!("the breaker for {reason} is open"),
    };
    Finding::new(Reason::GateBreakerOpen, phase, summary)
}

fn observed(mut finding: Finding) -> Finding {
    if finding.reason.is_hard() {
        finding.summary = format!("would have kept the node out: {}", finding.summary);
    }
    finding
}

#[cfg(test)]
mod tests {
    use contract::policy::Breaker;

    use super::*;

    fn fail(reasons: &[Reason]) -> Verdict {
        let found = reasons.iter().map(|r| Finding::new(*r, Phase::Drivers, "seen")).collect();
        Verdict::Fail(found)
    }

    #[test]
    fn a_gate_closes_unless_every_hard_finding_is_observed() {
        let gate = AgentConfig::new("prod", "h100");
        let observe = AgentConfig { enforce: Enforce::Observe, ..gate.clone() };
        let mut asked = gate.clone();
        asked.enforce_reasons.insert(Reason::EccUncorrectable.into(), Enforce::Gate);
        let mut one = gate.clone();
        one.enforce_reasons.insert(Reason::GpuCountShort.into(), Enforce::Observe);
        let mut but_one = observe.clone();
        but_one.enforce_reasons.insert(Reason::GpuLost.into(), Enforce::Gate);
        let none = PoolPolicy::default();

        let short = || fail(&[Reason::GpuCountShort]);
        let both = || fail(&[Reason::GpuCountShort, Reason::GpuLost]);
        let new = || fail(&[Reason::EccUncorrectable]);
        for (config, verdict, open) in [
            (&gate, new(), true),
            (&gate, fail(&[Reason::EccUncorrectable, Reason::GpuLost]), false),
            (&asked, new(), false),
            (&gate, short(), false),
            (&observe, short(), true),
            (&observe, both(), true),
            (&one, short(), true),
            (&one, both(), false),
            (&but_one, both(), false),
        ] {
            assert_eq!(enforce(verdict, Phase::Drivers, config, &none).is_open(), open);
        }
        assert!(!enforce(short(), Phase::Ready, &observe, &none).is_open());
        let Verdict::Degraded(found) = enforce(short(), Phase::Drivers, &observe, &none) else {
            panic!()
        };
        assert_eq!(found[0].summary, "would have kept the node out: seen");
    }

    #[test]
    fn the_pools_policy_goes_before_the_nodes_configuration() {
        let config = AgentConfig::new("prod", "h100");
        let observe = AgentConfig { enforce: Enforce::Observe, ..config.clone() };
        let policy = |enforce, reason: Option<Enforce>| {
            let mut policy = PoolPolicy { enforce, ..PoolPolicy::default() };
            let reason = reason.map(|enforce| (Reason::GpuCountShort.into(), enforce));
            policy.enforce_reasons.extend(reason);
            policy
        };
        for (config, policy, open) in [
            (&config, policy(Some(Enforce::Observe), None), true),
            (&config, policy(None, Some(Enforce::Observe)), true),
            (&config, policy(Some(Enforce::Observe), Some(Enforce::Gate)), false),
            (&observe, policy(Some(Enforce::Gate), None), false),
            (&observe, policy(None, Some(Enforce::Gate)), false),
        ] {
            let verdict = enforce(fail(&[Reason::GpuCountShort]), Phase::Drivers, config, &policy);
            assert_eq!(verdict.is_open(), open, "{policy:?}");
        }
    }

    #[test]
    fn an_open_breaker_lets_the_node_join_with_the_reason() {
        let config = AgentConfig::new("prod", "h100");
        let mut policy = PoolPolicy::default();
        let breaker = Breaker { opened: String::new(), failed: 40, nodes: 64 };
        policy.breakers.insert(Reason::GpuCountShort.into(), breaker);
        let short = fail(&[Reason::GpuCountShort]);
        let Verdict::Degraded(found) = enforce(short, Phase::Drivers, &config, &policy) else {
            panic!()
        };
        let names: Vec<_> = found.iter().map(|f| f.reason.as_str()).collect();
        assert_eq!(names, ["GpuCountShort", "GateBreakerOpen"]);
        assert!(found[1].summary.contains("40 of 64"), "{}", found[1].summary);
        let both = fail(&[Reason::GpuCountShort, Reason::GpuLost]);
        assert!(!enforce(both, Phase::Drivers, &config, &policy).is_open(), "one is still gated");
    }
}
