//! Whether a closed gate keeps the node out, or only says that it would.

use contract::agent_config::Enforce;
use contract::{AgentConfig, Finding, Phase, Verdict};

/// The verdict under the pool's enforcement: a gate whose hard findings are all only observed is
/// open, and says so. After registration nothing is kept out, so nothing is changed.
#[must_use]
pub fn enforce(verdict: Verdict, phase: Phase, config: &AgentConfig) -> Verdict {
    match verdict {
        Verdict::Fail(findings) if phase.is_before_kubelet() => {
            let is_observed = |finding: &Finding| {
                let own = config.enforce_reasons.get(&finding.reason);
                *own.unwrap_or(&config.enforce) == Enforce::Observe
            };
            if findings.iter().all(|finding| !finding.reason.is_hard() || is_observed(finding)) {
                Verdict::Degraded(findings.into_iter().map(observed).collect())
            } else {
                Verdict::Fail(findings)
            }
        }
        other => other,
    }
}

fn observed(mut finding: Finding) -> Finding {
    if finding.reason.is_hard() {
        finding.summary = format!("would have kept the node out: {}", finding.summary);
    }
    finding
}

#[cfg(test)]
mod tests {
    use contract::Reason;

    use super::*;

    fn fail(reasons: &[Reason]) -> Verdict {
        let found = reasons.iter().map(|r| Finding::new(*r, Phase::Drivers, "seen")).collect();
        Verdict::Fail(found)
    }

    #[test]
    fn a_gate_closes_unless_every_hard_finding_is_observed() {
        let gate = AgentConfig::new("prod", "h100");
        let observe = AgentConfig { enforce: Enforce::Observe, ..gate.clone() };
        let mut one = gate.clone();
        one.enforce_reasons.insert(Reason::GpuCountShort.into(), Enforce::Observe);
        let mut but_one = observe.clone();
        but_one.enforce_reasons.insert(Reason::GpuLost.into(), Enforce::Gate);

        let short = || fail(&[Reason::GpuCountShort]);
        let both = || fail(&[Reason::GpuCountShort, Reason::GpuLost]);
        for (config, verdict, open) in [
            (&gate, short(), false),
            (&observe, short(), true),
            (&observe, both(), true),
            (&one, short(), true),
            (&one, both(), false),
            (&but_one, both(), false),
        ] {
            assert_eq!(enforce(verdict, Phase::Drivers, config).is_open(), open);
        }
        assert!(!enforce(short(), Phase::Ready, &observe).is_open());
        let Verdict::Degraded(found) = enforce(short(), Phase::Drivers, &observe) else { panic!() };
        assert_eq!(found[0].summary, "would have kept the node out: seen");
    }
}
