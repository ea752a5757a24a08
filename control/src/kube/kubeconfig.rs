//! Our entries in a kubeconfig: text in, text out. Everything of other tools is kept; a file that
//! cannot be read is refused, never overwritten.
//!
//! Cluster and user carry the cluster's ARN, as the AWS CLI names them, so that two fleets of the
//! same name in two regions never meet; the context carries the fleet's name where that is free.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::aws::eks::ClusterFacts;

/// Why a kubeconfig is left alone.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// No YAML.
    #[error("the kubeconfig is not YAML")]
    Unreadable(#[source] serde_yaml::Error),
    /// YAML, and no kubeconfig.
    #[error("the kubeconfig is broken: {0}")]
    Broken(String),
    /// Cannot be written back.
    #[error("the kubeconfig cannot be written as YAML")]
    Unwritable(#[source] serde_yaml::Error),
}

/// A kubeconfig with our entries in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The file's new text.
    pub text: String,
    /// Name of our context, which is now the current one.
    pub context: String,
    /// Whether the text differs in meaning from what was there.
    pub changed: bool,
}

/// How kubectl gets its tokens: this very program.
#[derive(Clone, Copy, Debug)]
pub struct Exec<'a> {
    /// Absolute path of `control`.
    pub program: &'a Path,
    /// `AWS_PROFILE`, when one is set.
    pub profile: Option<&'a str>,
}

/// Adds or renews our entries and makes ours the current context.
///
/// # Errors
/// When the existing text is no kubeconfig.
pub fn merge(
    existing: &str,
    facts: &ClusterFacts,
    exec: Exec<'_>,
) -> Result<Merged, KubeconfigError> {
    let before = parse(existing)?;
    let mut config = before.clone();
    let config_map = object(&mut config)?;
    config_map.entry("apiVersion").or_insert_with(|| "v1".into());
    config_map.entry("kind").or_insert_with(|| "Config".into());
    config_map.entry("preferences").or_insert_with(|| json!({}));

    upsert(
        config_map,
        "clusters",
        &facts.arn,
        "cluster",
        &json!({
            "server": facts.endpoint,
            "certificate-authority-data": facts.certificate_authority,
        }),
    )?;
    let context =
        if context_is_free(config_map, &facts.name, &facts.arn) { &facts.name } else { &facts.arn };
    upsert(
        config_map,
        "contexts",
        context,
        "context",
        &json!({
            "cluster": facts.arn,
            "user": facts.arn,
        }),
    )?;
    upsert(config_map, "users", &facts.arn, "user", &json!({"exec": exec_entry(facts, exec)}))?;
    config_map.insert("current-context".into(), context.as_str().into());

    let changed = config != before;
    let text = serde_yaml::to_string(&config).map_err(KubeconfigError::Unwritable)?;
    Ok(Merged { text, context: context.clone(), changed })
}

/// Removes our entries for a cluster; none when there are none.
///
/// # Errors
/// When the existing text is no kubeconfig.
pub fn without(
    existing: &str,
    region: &str,
    cluster: &str,
) -> Result<Option<String>, KubeconfigError> {
    let mut config = parse(existing)?;
    let config_map = object(&mut config)?;
    let users = entries(config_map, "users")?;
    let ours: Vec<String> = users
        .iter()
        .filter(|user| is_arn_of(&user["name"], region, cluster) && is_our_exec(user, cluster))
        .filter_map(|user| user["name"].as_str().map(str::to_owned))
        .collect();
    if ours.is_empty() {
        return Ok(None);
    }
    let is_ours = |name: &Value| name.as_str().is_some_and(|n| ours.iter().any(|our| our == n));
    users.retain(|user| !is_ours(&user["name"]));
    entries(config_map, "clusters")?.retain(|cluster| !is_ours(&cluster["name"]));
    let contexts = entries(config_map, "contexts")?;
    contexts.retain(|context| !is_ours(&context["context"]["user"]));
    let left: Vec<Value> = contexts.iter().map(|context| context["name"].clone()).collect();
    if config_map.get("current-context").is_some_and(|current| !left.contains(current)) {
        config_map.insert("current-context".into(), "".into());
    }
    serde_yaml::to_string(&config).map(Some).map_err(KubeconfigError::Unwritable)
}

fn exec_entry(facts: &ClusterFacts, exec: Exec<'_>) -> Value {
    let mut entry = json!({
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": exec.program.to_string_lossy(),
        "args": ["token", "--cluster-name", facts.name, "--region", facts.region],
        "interactiveMode": "Never",
        "provideClusterInfo": false,
    });
    if let Some(profile) = exec.profile {
        entry["env"] = json!([{"name": "AWS_PROFILE", "value": profile}]);
    }
    entry
}

fn parse(existing: &str) -> Result<Value, KubeconfigError> {
    if existing.trim().is_empty() {
        return Ok(json!({}));
    }
    let config: Value = serde_yaml::from_str(existing).map_err(KubeconfigError::Unreadable)?;
    match config {
        Value::Null => Ok(json!({})),
        Value::Object(ref map) if map.get("kind").is_none_or(|kind| kind == "Config") => Ok(config),
        _ => Err(KubeconfigError::Broken("it is no object of kind Config".into())),
    }
}

fn object(config: &mut Value) -> Result<&mut Map<String, Value>, KubeconfigError> {
    config.as_object_mut().ok_or_else(|| KubeconfigError::Broken("it is no object".into()))
}

fn entries<'a>(
    config: &'a mut Map<String, Value>,
    list: &str,
) -> Result<&'a mut Vec<Value>, KubeconfigError> {
    let value = config.entry(list).or_insert(Value::Null);
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut().ok_or_else(|| KubeconfigError::Broken(format!("`{list}` is no list")))
}

fn upsert(
    config: &mut Map<String, Value>,
    list: &str,
    name: &str,
    key: &str,
    value: &Value,
) -> Result<(), KubeconfigError> {
    let entries = entries(config, list)?;
    match entries.iter_mut().find(|entry| entry["name"] == name) {
        Some(Value::Object(entry)) => {
            // A namespace that the user has set on our context stays.
            match (entry.get_mut(key).and_then(Value::as_object_mut), value.as_object()) {
                (Some(old), Some(new)) if key == "context" => old.extend(new.clone()),
                _ => {
                    entry.insert(key.into(), value.clone());
                }
            }
        }
        _ => {
            let mut entry = Map::new();
            entry.insert("name".into(), name.into());
            entry.insert(key.into(), value.clone());
            entries.push(Value::Object(entry));
        }
    }
    Ok(())
}

/// Whether the context's name is unused, or used for this very cluster.
fn context_is_free(config: &Map<String, Value>, name: &str, arn: &str) -> bool {
    config.get("contexts").and_then(Value::as_array).is_none_or(|contexts| {
        contexts
            .iter()
            .all(|context| context["name"] != name || context["context"]["cluster"] == arn)
    })
}

fn is_arn_of(name: &Value, region: &str, cluster: &str) -> bool {
    name.as_str().is_some_and(|arn| {
        arn.starts_with("arn:")
            && arn.ends_with(&format!(":cluster/{cluster}"))
            && arn.split(':').nth(3) == Some(region)
    })
}

/// An entry of the AWS CLI for the same cluster has the same name; it is not ours to remove.
fn is_our_exec(user: &Value, cluster: &str) -> bool {
    let args = &user["user"]["exec"]["args"];
    args[0] == "token" && args[1] == "--cluster-name" && args[2] == cluster
}

#[cfg(test)]
mod tests;
