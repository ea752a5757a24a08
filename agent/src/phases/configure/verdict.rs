//! Whether the configuration is complete and legal: facts in, verdict out.
//!
//! Hard is only what keeps the node out for certain: nodeadm would stop, or kubelet end at its start.

use contract::names::AGENT_CONFIG_PATH;
use contract::{AgentConfig, Finding, Phase, Reason, Verdict};
use serde_json::Value;

use super::{Facts, Form, NodeConfig, Source, Trouble, lint, placement};

/// Whether the configuration is complete and legal.
#[must_use]
pub fn verdict(facts: &Facts) -> Verdict {
    let mut findings = Vec::new();
    findings.extend(agent_finding(facts.agent.as_ref()));
    findings.extend(facts.agent.iter().flatten().filter_map(unknown_exceptions));
    findings.extend(source_findings(facts));
    if let Some(problem) = &facts.unmergeable {
        findings.push(finding(Reason::NodeConfigInvalid, problem.clone()));
    }
    if facts.merged.is_object() {
        findings.extend(merged_findings(&facts.merged));
        findings.extend(lost_taints(facts));
        findings.extend(contradictions(facts));
    }
    findings.extend(unknown_fields(facts));
    Verdict::of(contract::verdict::rank(findings))
}

fn finding(reason: Reason, summary: impl Into<String>) -> Finding {
    Finding::new(reason, Phase::Configure, summary)
}

fn with(finding: Finding, evidence: impl IntoIterator<Item = String>) -> Finding {
    evidence.into_iter().fold(finding, Finding::with_evidence)
}

fn agent_finding(agent: Option<&Result<AgentConfig, String>>) -> Option<Finding> {
    let summary = match agent {
        Some(Ok(_)) => return None,
        Some(Err(problem)) => format!("`{AGENT_CONFIG_PATH}` cannot be read: {problem}"),
        None => format!("no `{AGENT_CONFIG_PATH}`, neither in the user data nor on the disk"),
    };
    Some(finding(Reason::AgentConfigInvalid, summary))
}

/// Exceptions for reasons that nobody can find. Soft: the agent may be older than its configuration.
fn unknown_exceptions(config: &AgentConfig) -> Option<Finding> {
    let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    let unknown = config.enforce_reasons.keys().filter(|reason| reason.known().is_none());
    let names: Vec<String> = unknown
        .map(|reason| match lint::nearest(reason.as_str(), &known) {
            Some(nearest) => format!("`{reason}` (did you mean `{nearest}`?)"),
            None => format!("`{reason}`"),
        })
        .collect();
    let what = format!("`enforceReasons` names {}, which does nothing", names.join(", "));
    (!names.is_empty()).then(|| finding(Reason::AgentConfigUnknownReason, what))
}

/// What keeps nodeadm from taking a source, and whether one is left.
fn source_findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let has_config = facts.configs().any(|_| true);
    let user_data = facts.sources.iter().find(|source| !source.name.starts_with('/'));
    let ignored = user_data.and_then(|source| match &source.configs {
        Err(Trouble::Ignored(problem)) if source.form != Form::Empty => Some((source, problem)),
        _ => None,
    });
    for source in &facts.sources {
        if let Err(Trouble::Fatal(problem)) = &source.configs {
            let what = format!("nodeadm stops at {}", source_name(source));
            findings.push(with(finding(Reason::NodeConfigInvalid, what), [problem.clone()]));
        }
    }
    match ignored {
        Some((_, problem)) if has_config => {
            let what = "nodeadm ignores the user data: it goes by the drop-ins alone";
            findings.push(with(finding(Reason::NodeConfigIgnored, what), [problem.clone()]));
        }
        Some((source, problem)) if source.form == Form::Alone => {
            let what = "the user data is neither MIME nor a NodeConfig";
            findings.push(with(finding(Reason::UserDataNotMime, what), [problem.clone()]));
        }
        Some((_, problem)) => {
            let what = format!("nodeadm ignores the user data as a whole: {problem}");
            findings.push(finding(Reason::NodeConfigInvalid, what));
        }
        None if user_data.is_none() => {
            let what = "there is no user data, and nodeadm stops there, whatever the drop-ins say";
            findings.push(finding(Reason::NodeConfigMissing, what));
        }
        None if !has_config && findings.is_empty() => {
            let is_empty = user_data.is_some_and(|source| source.form == Form::Empty);
            let what = match is_empty {
                true => "the user data is empty, and there is no drop-in",
                false => "the user data has no part of type `application/node.eks.aws`",
            };
            findings.push(finding(Reason::NodeConfigMissing, what));
        }
        None => {}
    }
    findings
}

fn source_name(source: &Source) -> String {
    if source.name.starts_with('/') { format!("`{}`", source.name) } else { source.name.clone() }
}

fn merged_findings(merged: &Value) -> Vec<Finding> {
    let invalid = |problem| finding(Reason::NodeConfigInvalid, problem);
    let mut findings: Vec<Finding> =
        NodeConfig::of(merged).err().map(invalid).into_iter().collect();
    findings.extend(lint::refused_values(merged).into_iter().map(invalid));
    let refused = placement::refused_labels(&placement::labels(merged));
    if let Some((first, others)) = refused.split_first() {
        let finding = finding(Reason::NodeLabelForbidden, first.clone());
        findings.push(with(finding, others.to_vec()));
    }
    findings
}

/// Taints that a document asks for and kubelet will not register with: an autoscaler that waits for
/// its own startup taint takes the node for a stranger's.
fn lost_taints(facts: &Facts) -> Option<Finding> {
    let kept = placement::effective_taints(&facts.merged);
    let asked = placement::asked_taints(facts.configs().map(|config| &config.spec));
    let lost: Vec<String> =
        asked.iter().filter(|taint| !kept.contains(taint)).map(placement::Taint::as_flag).collect();
    let by = match placement::flag_taints(&facts.merged) {
        Some(_) => "`--register-with-taints` replaces the list",
        None => "a later `registerWithTaints` replaces the list",
    };
    let what = format!("the node will register without `{}`: {by}", lost.join("`, `"));
    (!lost.is_empty()).then(|| finding(Reason::StartupTaintLost, what))
}

fn contradictions(facts: &Facts) -> Option<Finding> {
    let configs: Vec<_> = facts.configs().collect();
    configs.windows(2).find_map(|pair| {
        let what = lint::contradiction(&pair[0].spec, &pair[1].spec)?;
        let places = format!("{what}; the later one wins ({}, {})", pair[0].place, pair[1].place);
        Some(finding(Reason::NodeConfigContradictory, places))
    })
}

fn unknown_fields(facts: &Facts) -> Vec<Finding> {
    let of = |config: &super::Config| {
        let fields = lint::unknown_fields(&config.document);
        let place = config.place.clone();
        fields.into_iter().map(move |field| {
            let mut summary = format!("nodeadm drops `{}` in {place}", field.path);
            if let Some(nearest) = field.nearest {
                summary += &format!("; did you mean `{nearest}`?");
            }
            finding(Reason::NodeConfigUnknownField, summary)
        })
    };
    facts.configs().flat_map(of).collect()
}
