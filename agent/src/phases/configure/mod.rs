//! Phase 2: the agent's configuration and every NodeConfig source, merged and linted.
//!
//! - [`source`]: where documents come from and what nodeadm makes of each source ([`mime`], [`yaml`],
//!   [`typed`]);
//! - [`merge`]: one over the other, by nodeadm's rules;
//! - [`lint`], [`placement`]: what is wrong with the result;
//! - [`mod@verdict`]: what that means for the node;
//! - [`fragment`]: what the agent adds, through `/etc/eks/nodeadm.d`.

pub mod agent_file;
pub mod fragment;
pub mod lint;
pub mod merge;
pub mod mime;
pub mod placement;
pub mod proxy;
pub mod source;
pub mod typed;
pub mod verdict;
pub mod yaml;

use base64::Engine as _;
use contract::names::AGENT_CONFIG_PATH;
use contract::{AgentConfig, ErrorChain};
use serde_json::{Value, json};

use self::proxy::Proxies;
pub use self::source::{Config, Form, Source, Trouble};
pub use self::verdict::verdict;
use crate::host::{Root, files};

/// What the node was told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The agent's configuration.
    pub agent: Option<Result<AgentConfig, String>>,
    /// The sources in nodeadm's order: the user data, when there is any, then the drop-ins.
    pub sources: Vec<Source>,
    /// The NodeConfigs merged, `{"spec": …}`; null when there is none.
    pub merged: Value,
    /// Why they cannot be merged, where nodeadm would stop.
    pub unmergeable: Option<String>,
}

impl Facts {
    /// Every NodeConfig, in order.
    pub fn configs(&self) -> impl Iterator<Item = &Config> {
        self.sources.iter().flat_map(|source| source.configs.iter().flatten())
    }

    /// Every NodeConfig but the agent's own, in order.
    fn configs_of_others(&self) -> impl Iterator<Item = &Config> {
        let others = self.sources.iter().filter(|source| !source.is_ours());
        others.flat_map(|source| source.configs.iter().flatten())
    }

    /// What nodeadm would merge without the agent's own fragment.
    #[must_use]
    pub fn without_ours(&self) -> Value {
        merged(self.sources.iter().filter(|source| !source.is_ours())).unwrap_or_default()
    }
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
    let mut sources: Vec<Source> = user_data.map(source::user_data).into_iter().collect();
    sources.extend(source::drop_ins(root));
    let (merged, unmergeable) = match merged(&sources) {
        Ok(merged) => (merged, None),
        Err(problem) => (Value::Null, Some(problem)),
    };
    Facts { agent: agent_config(root, user_data), sources, merged, unmergeable }
}

/// Writes what the agent's configuration adds, and reads again what that changes. Facts without a
/// legible configuration stay as they are.
#[must_use]
pub fn with_additions(root: &Root, facts: Facts, user_data: Option<&[u8]>) -> Facts {
    let Some(Ok(agent)) = &facts.agent else { return facts };
    let others = facts.configs_of_others().map(|config| &config.spec);
    let asked = placement::asked_taints(others);
    let wanted = fragment::wanted(&agent.node, &facts.without_ours(), &asked);
    match fragment::apply(root, wanted.as_deref()) {
        Ok(false) => facts,
        Ok(true) => gather(root, user_data),
        Err(error) => {
            let problem = ErrorChain(&error).to_string();
            // Without it the node would join without its labels and taints.
            Facts { unmergeable: wanted.map(|_| problem), ..facts }
        }
    }
}

/// Merges as nodeadm does: the documents of the user data, the files of the directory, and then the
/// one over the other. The grouping matters where a value changes its type in between.
fn merged<'a>(sources: impl IntoIterator<Item = &'a Source>) -> Result<Value, String> {
    let (user_data, files): (Vec<&Source>, Vec<&Source>) =
        sources.into_iter().partition(|source| !source.name.starts_with('/'));
    let mut result: Option<Value> = None;
    let groups = [group(&user_data)?, group(&files)?];
    for spec in groups.into_iter().flatten() {
        match &mut result {
            None => result = Some(spec),
            Some(earlier) => merge::merge(earlier, spec)?,
        }
    }
    Ok(result.map_or(Value::Null, |spec| json!({ "spec": spec })))
}

/// Each file's own documents first, then file over file.
fn group(sources: &[&Source]) -> Result<Option<Value>, String> {
    let over = |specs: Vec<Value>| -> Result<Option<Value>, String> {
        let mut specs = specs.into_iter();
        let Some(mut first) = specs.next() else { return Ok(None) };
        specs.try_for_each(|later| merge::merge(&mut first, later))?;
        Ok(Some(first))
    };
    let mut wholes = Vec::new();
    for source in sources {
        let specs = source.configs.iter().flatten().map(|config| config.spec.clone());
        wholes.extend(over(specs.collect())?);
    }
    over(wholes)
}

/// The agent's configuration: from the user data, since the join runs before cloud-init has written
/// the file; without one there, from the disk.
fn agent_config(root: &Root, user_data: Option<&[u8]>) -> Option<Result<AgentConfig, String>> {
    match user_data.map(agent_file::in_user_data) {
        Some(Ok(Some(text))) => return Some(agent_file::parse(&text)),
        Some(Err(problem)) => return Some(Err(problem)),
        Some(Ok(None)) | None => {}
    }
    match files::read_text(&root.path(AGENT_CONFIG_PATH)) {
        Ok(text) => Some(agent_file::parse(&text)),
        Err(error) if error.is_not_found() => None,
        Err(error) => Some(Err(ErrorChain(&error).to_string())),
    }
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
        let ca = text("spec.cluster.certificateAuthority");
        let ca_pem = source::BASE64.decode(ca).map_err(|error| {
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
