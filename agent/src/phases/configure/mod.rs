//! Phase 2: the agent's configuration and every NodeConfig source, merged and linted.

pub mod lint;
pub mod merge;
pub mod proxy;
pub mod user_data;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::names::{AGENT_CONFIG_PATH, NODEADM_DROPIN_DIR};
use contract::{AgentConfig, Finding, Phase, Reason, Verdict};
use serde::Deserialize as _;
use serde_json::Value;

use self::proxy::Proxies;
use self::user_data::UserData;
use crate::host::{Root, files};

/// What the node was told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The agent's configuration.
    pub agent: Option<Result<AgentConfig, String>>,
    /// Whether there is user data at all.
    pub has_user_data: bool,
    /// What is in it.
    pub user_data: UserData,
    /// The NodeConfig documents in nodeadm's order, each with its source.
    pub documents: Vec<Document>,
    /// The documents merged.
    pub merged: Value,
}

/// One NodeConfig document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Where it comes from.
    pub source: String,
    /// What it says, or why it cannot be read.
    pub content: Result<Value, String>,
}

/// What the merged NodeConfig says of the cluster, and what else the join acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Name of the cluster.
    pub cluster: String,
    /// URL of its API server.
    pub endpoint: String,
    /// Its CA, PEM.
    pub ca_pem: Vec<u8>,
    /// Whether the Node is called by the instance id.
    pub named_by_instance: bool,
    /// The proxy that kubelet will use for the API server.
    pub proxy: Option<String>,
}

/// Reads what the user data and the disk say. The user data has been fetched; the disk is local.
#[must_use]
pub fn gather(root: &Root, user_data: Option<&[u8]>) -> Facts {
    let parsed = user_data.map(user_data::parse).unwrap_or_default();
    let mut documents: Vec<Document> = parsed
        .node_configs
        .iter()
        .map(|text| Document { source: "user data".into(), content: read_document(text) })
        .collect();
    documents.extend(dropins(root));
    let mut merged = Value::Null;
    for document in &documents {
        if let Ok(content) = &document.content {
            merge::merge(&mut merged, content.clone());
        }
    }
    Facts {
        agent: agent_config(root, &parsed),
        has_user_data: user_data.is_some_and(|bytes| !bytes.is_empty()),
        user_data: parsed,
        documents,
        merged,
    }
}

/// The agent's configuration: from the user data, since the join runs before cloud-init has written
/// the file; without one there, from the disk.
fn agent_config(root: &Root, user_data: &UserData) -> Option<Result<AgentConfig, String>> {
    let parse = |text: &str| serde_yaml::from_str(text).map_err(|error| error.to_string());
    if let Some(text) = &user_data.agent_config {
        return Some(parse(text));
    }
    match files::read_text(&root.path(AGENT_CONFIG_PATH)) {
        Ok(text) => Some(parse(&text)),
        Err(error) if error.is_not_found() => None,
        Err(error) => Some(Err(contract::ErrorChain(&error).to_string())),
    }
}

/// `/etc/eks/nodeadm.d`: yaml, yml and json, by name, not deeper. A file may be MIME itself.
fn dropins(root: &Root) -> Vec<Document> {
    let directory = root.path(NODEADM_DROPIN_DIR);
    let is_config = |name: &String| {
        let name = name.to_ascii_lowercase();
        [".yaml", ".yml", ".json"].iter().any(|suffix| name.ends_with(suffix))
    };
    let mut documents = Vec::new();
    for name in files::names_in(&directory).into_iter().filter(is_config) {
        let source = format!("{NODEADM_DROPIN_DIR}/{name}");
        match files::read(&directory.join(&name)) {
            Ok(bytes) => {
                let parsed = user_data::parse(&bytes);
                let configs = parsed.node_configs.iter().map(|text| read_document(text));
                let problems = parsed.problems.iter().cloned().map(Err);
                documents.extend(
                    configs
                        .chain(problems)
                        .map(|content| Document { source: source.clone(), content }),
                );
            }
            Err(error) => {
                let content = Err(contract::ErrorChain(&error).to_string());
                documents.push(Document { source, content });
            }
        }
    }
    documents
}

/// The first YAML document of a text, which is the only one that nodeadm reads.
fn read_document(text: &str) -> Result<Value, String> {
    let first = serde_yaml::Deserializer::from_str(text).next();
    let value = match first {
        Some(document) => Value::deserialize(document).map_err(|error| error.to_string())?,
        None => Value::Null,
    };
    let says = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    if says("apiVersion") != lint::API_VERSION || says("kind") != lint::KIND {
        return Err(format!("it is no `{}` of `{}`", lint::KIND, lint::API_VERSION));
    }
    Ok(value)
}

/// Whether the configuration is complete and legal.
#[must_use]
pub fn verdict(facts: &Facts) -> Verdict {
    let mut findings = Vec::new();
    findings.extend(agent_finding(facts.agent.as_ref()));
    findings.extend(source_findings(facts));
    let is_known = facts.documents.iter().any(|document| document.content.is_ok());
    if is_known && let Err(problem) = NodeConfig::of(&facts.merged) {
        findings.push(Finding::new(Reason::NodeConfigInvalid, Phase::Configure, problem));
    }
    for document in &facts.documents {
        let Ok(content) = &document.content else { continue };
        for field in lint::unknown_fields(content) {
            let mut summary = format!("nodeadm drops `{}` in {}", field.path, document.source);
            if let Some(nearest) = field.nearest {
                summary += &format!("; did you mean `{nearest}`?");
            }
            let reason = Reason::NodeConfigUnknownField;
            findings.push(Finding::new(reason, Phase::Configure, summary));
        }
    }
    Verdict::of(contract::verdict::rank(findings))
}

fn agent_finding(agent: Option<&Result<AgentConfig, String>>) -> Option<Finding> {
    let summary = match agent {
        Some(Ok(config)) if config.version == 1 => return None,
        Some(Ok(config)) => {
            format!("`{AGENT_CONFIG_PATH}` is of version {}, and we know 1", config.version)
        }
        Some(Err(problem)) => format!("`{AGENT_CONFIG_PATH}` cannot be read: {problem}"),
        None => format!("no `{AGENT_CONFIG_PATH}`, neither in the user data nor on the disk"),
    };
    Some(Finding::new(Reason::AgentConfigInvalid, Phase::Configure, summary))
}

fn source_findings(facts: &Facts) -> Vec<Finding> {
    let finding = |reason, summary: String| Finding::new(reason, Phase::Configure, summary);
    let unread: Vec<String> = facts
        .documents
        .iter()
        .filter_map(|d| Some(format!("{}: {}", d.source, d.content.as_ref().err()?)))
        .chain(facts.user_data.problems.iter().map(|problem| format!("user data: {problem}")))
        .collect();
    let has_config = facts.documents.iter().any(|document| document.content.is_ok());
    let whole_is_unread =
        !facts.user_data.is_mime && facts.has_user_data && !has_config && !unread.is_empty();

    if whole_is_unread {
        let what = "the user data is neither MIME nor a NodeConfig";
        return vec![with(finding(Reason::UserDataNotMime, what.into()), unread)];
    }
    let mut findings = Vec::new();
    if !has_config {
        let what = match (facts.has_user_data, unread.is_empty()) {
            (false, _) => "there is no user data, and no drop-in",
            (true, true) => "the user data has no part of type `application/node.eks.aws`",
            (true, false) => "no NodeConfig can be read",
        };
        findings.push(with(finding(Reason::NodeConfigMissing, what.into()), unread.clone()));
    }
    // A broken drop-in is fatal for nodeadm; what does not decode in the user data is not.
    let broken = facts.documents.iter().filter(|d| d.content.is_err() && d.source != "user data");
    if let Some(document) = broken.into_iter().next() {
        let what = format!("nodeadm stops at `{}`", document.source);
        findings.push(with(finding(Reason::NodeConfigInvalid, what), unread));
    }
    findings
}

fn with(finding: Finding, evidence: Vec<String>) -> Finding {
    evidence.into_iter().fold(finding, Finding::with_evidence)
}

impl NodeConfig {
    /// Reads the merged document.
    ///
    /// # Errors
    /// When a value that nodeadm demands is missing, or the CA is not base64.
    pub fn of(merged: &Value) -> Result<Self, String> {
        let missing = lint::missing(merged);
        if !missing.is_empty() {
            return Err(format!("nothing sets `{}`", missing.join("`, `")));
        }
        let text = |path: &str| lint::at(merged, path).and_then(Value::as_str).unwrap_or_default();
        let ca: String =
            text("spec.cluster.certificateAuthority").split_ascii_whitespace().collect();
        let ca_pem = STANDARD.decode(ca).map_err(|error| {
            format!("`spec.cluster.certificateAuthority` is not base64: {error}")
        })?;
        let endpoint = text("spec.cluster.apiServerEndpoint").to_owned();
        let gate = lint::at(merged, "spec.featureGates.InstanceIdNodeName");
        Ok(Self {
            cluster: text("spec.cluster.name").to_owned(),
            proxy: Proxies::of_service(merged, "kubelet").to(&endpoint),
            endpoint,
            ca_pem,
            named_by_instance: gate.and_then(Value::as_bool).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests;
