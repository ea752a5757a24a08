//! What kubelet is told: nodeadm's files and flags, merged as kubelet merges them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::{KubeletError, KubeletOptions};
use crate::kubernetes::standin::is_restricted_label;

const ENVIRONMENT: &str = "/etc/eks/kubelet/environment";
const CONFIG: &str = "/etc/kubernetes/kubelet/config.json";
const DROPINS: &str = "/etc/kubernetes/kubelet/config.json.d";
const KUBECONFIG: &str = "/var/lib/kubelet/kubeconfig";

/// Everything that decides how the node registers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) node_name: String,
    pub(super) node_ip: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) taints: Vec<Value>,
    pub(super) provider_id: Option<String>,
    pub(super) max_pods: u64,
    pub(super) reserved: BTreeMap<String, String>,
    pub(super) version: String,
    pub(super) access: Access,
}

/// How to reach the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) server: String,
    pub(super) ca_pem: String,
    pub(super) cluster: String,
    pub(super) region: String,
}

impl Settings {
    /// Reads everything from the node's root.
    pub(super) fn read(options: &KubeletOptions) -> Result<Self, KubeletError> {
        let root = options.root.as_path();
        let arguments = match &options.arguments {
            Some(arguments) => arguments.clone(),
            None => environment_arguments(&read_file(root, ENVIRONMENT)?)
                .ok_or_else(|| refuse(ENVIRONMENT, "NODEADM_KUBELET_ARGS is not set"))?,
        };
        let flags = parse_flags(&arguments);
        let mut config = read_json(root, CONFIG)?;
        for dropin in dropins(root) {
            merge(&mut config, read_json(root, &dropin)?);
        }
        let version = read_file(root, "/etc/eks/kubelet-version.txt")?.trim().to_owned();
        let access = read_access(root)?;
        decide(&flags, &config, version, access)
    }
}

fn refuse(path: &str, why: impl ToString) -> KubeletError {
    KubeletError::Config { path: path.to_owned(), why: why.to_string() }
}

/// A path of the node under its root.
pub(super) fn under(root: &Path, path: &str) -> std::path::PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn read_file(root: &Path, path: &str) -> Result<String, KubeletError> {
    std::fs::read_to_string(under(root, path)).map_err(|error| refuse(path, error))
}

fn read_json(root: &Path, path: &str) -> Result<Value, KubeletError> {
    serde_json::from_str(&read_file(root, path)?).map_err(|error| refuse(path, error))
}

fn dropins(root: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(under(root, DROPINS)) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "conf"))
        .collect();
    names.sort();
    names.into_iter().map(|name| format!("{DROPINS}/{name}")).collect()
}

/// Drop-ins replace lists and merge maps.
fn merge(config: &mut Value, over: Value) {
    match (config, over) {
        (Value::Object(config), Value::Object(over)) => {
            for (key, value) in over {
                merge(config.entry(key).or_insert(Value::Null), value);
            }
        }
        (config, over) => *config = over,
    }
}

/// The value of `NODEADM_KUBELET_ARGS` in an environment file.
fn environment_arguments(file: &str) -> Option<String> {
    let line = file.lines().find_map(|line| line.trim().strip_prefix("NODEADM_KUBELET_ARGS="))?;
    Some(line.trim_matches(['"', '\'']).to_owned())
}

/// Flags by name, in the order given: `--a=b`, `--a b` or a bare `--a`.
fn parse_flags(arguments: &str) -> Vec<(String, String)> {
    let mut flags: Vec<(String, String)> = Vec::new();
    let arguments = arguments.trim().trim_matches(['"', '\'']);
    for word in arguments.split_whitespace() {
        match (word.strip_prefix("--"), flags.last_mut()) {
            (Some(flag), _) => match flag.split_once('=') {
                Some((name, value)) => flags.push((name.into(), value.trim_matches('"').into())),
                None => flags.push((flag.into(), String::new())),
            },
            (None, Some((_, value))) if value.is_empty() => word.clone_into(value),
            (None, _) => {}
        }
    }
    flags
}

/// Flags win over the file. Pure.
fn decide(
    flags: &[(String, String)],
    config: &Value,
    version: String,
    access: Access,
) -> Result<Settings, KubeletError> {
    let last = |name: &str| {
        flags.iter().rev().find(|(flag, _)| flag == name).map(|(_, value)| value.clone())
    };
    let mut labels = BTreeMap::new();
    // Repeated label flags add up; a repeated taint flag replaces.
    for (_, value) in flags.iter().filter(|(flag, _)| flag == "node-labels") {
        for pair in value.split(',').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            labels.insert(key.to_owned(), value.to_owned());
        }
    }
    let forbidden: Vec<&str> =
        labels.keys().map(String::as_str).filter(|label| is_restricted_label(label)).collect();
    if !forbidden.is_empty() {
        return Err(KubeletError::Flags(format!(
            "unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [{}]",
            forbidden.join(" ")
        )));
    }
    let mut taints = match last("register-with-taints") {
        Some(flag) => parse_taints(&flag)?,
        None => config["registerWithTaints"].as_array().cloned().unwrap_or_default(),
    };
    if last("cloud-provider").as_deref() == Some("external") {
        taints.push(json!({"key": "node.cloudprovider.kubernetes.io/uninitialized",
            "value": "true", "effect": "NoSchedule"}));
    }
    let node_name = last("hostname-override")
        .filter(|name| !name.is_empty())
        .ok_or_else(|| KubeletError::Flags("--hostname-override is not given".to_owned()))?;
    let reserved = config["kubeReserved"].as_object().into_iter().flatten();
    Ok(Settings {
        node_name,
        node_ip: last("node-ip").filter(|ip| !ip.is_empty()),
        labels,
        taints,
        provider_id: config["providerID"].as_str().map(str::to_owned),
        max_pods: config["maxPods"].as_u64().unwrap_or(110),
        reserved: reserved
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
        version,
        access,
    })
}

/// `key=value:Effect,key:Effect`.
fn parse_taints(flag: &str) -> Result<Vec<Value>, KubeletError> {
    let bad = |spec: &str| KubeletError::Flags(format!("invalid taint spec: {spec}"));
    flag.split(',')
        .filter(|spec| !spec.is_empty())
        .map(|spec| {
            let (pair, effect) = spec.rsplit_once(':').ok_or_else(|| bad(spec))?;
            if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
                return Err(bad(spec));
            }
            Ok(match pair.split_once('=') {
                Some((key, value)) => json!({"key": key, "value": value, "effect": effect}),
                None => json!({"key": pair, "effect": effect}),
            })
        })
        .collect()
}

fn read_access(root: &Path) -> Result<Access, KubeletError> {
    let text = read_file(root, KUBECONFIG)?;
    let config: Value = serde_yaml::from_str(&text).map_err(|error| refuse(KUBECONFIG, error))?;
    let missing = |what: &str| refuse(KUBECONFIG, format!("{what} is missing"));
    let cluster = &config["clusters"][0]["cluster"];
    let server = cluster["server"].as_str().ok_or_else(|| missing("clusters[0].cluster.server"))?;
    let ca = cluster["certificate-authority"]
        .as_str()
        .ok_or_else(|| missing("clusters[0].cluster.certificate-authority"))?;
    let exec = &config["users"][0]["user"]["exec"];
    let arguments: Vec<&str> =
        exec["args"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| *argument == name)?;
        arguments.get(at + 1).map(|value| (*value).to_owned())
    };
    Ok(Access {
        server: server.trim_end_matches('/').to_owned(),
        // An absolute path is one of the node's, also when it was written with its root.
        ca_pem: match std::fs::read_to_string(ca) {
            Ok(pem) if Path::new(ca).starts_with(root) => pem,
            _ => read_file(root, ca)?,
        },
        cluster: option("--cluster-name").ok_or_else(|| missing("--cluster-name"))?,
        region: option("--region").ok_or_else(|| missing("--region"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access {
            server: "https://localhost:1".into(),
            ca_pem: String::new(),
            cluster: "prod".into(),
            region: "us-east-1".into(),
        }
    }

    fn settle(arguments: &str, config: Value) -> Result<Settings, KubeletError> {
        decide(&parse_flags(arguments), &config, "v1.34.2".into(), access())
    }

    #[test]
    fn flags_name_the_node_its_labels_and_its_taints() {
        let file = "NODEADM_KUBELET_ARGS=\"--hostname-override=ip-10-0-0-1 --node-ip=10.0.0.1 \
                    --node-labels=a=b,c=d --node-labels e=f --cloud-provider=external \
                    --register-with-taints=nvidia.com/gpu=true:NoSchedule\"\n";
        let arguments = environment_arguments(file).unwrap();
        let config = json!({"providerID": "aws:///z/i-1", "maxPods": 100,
            "registerWithTaints": [{"key": "lost", "effect": "NoSchedule"}]});
        let settings = settle(&arguments, config).unwrap();
        assert_eq!(settings.node_name, "ip-10-0-0-1");
        assert_eq!(settings.node_ip.as_deref(), Some("10.0.0.1"));
        assert_eq!(settings.labels.len(), 3);
        assert_eq!(settings.labels["e"], "f");
        let keys: Vec<_> = settings.taints.iter().map(|taint| &taint["key"]).collect();
        assert_eq!(keys, ["nvidia.com/gpu", "node.cloudprovider.kubernetes.io/uninitialized"]);
        assert_eq!(settings.provider_id.as_deref(), Some("aws:///z/i-1"));
    }

    #[test]
    fn taints_come_from_the_file_where_no_flag_says_otherwise() {
        let config = json!({"registerWithTaints": [{"key": "kept", "effect": "NoSchedule"}]});
        let settings = settle("--hostname-override=a", config).unwrap();
        assert_eq!(settings.taints[0]["key"], "kept");
    }

    #[test]
    fn kubelet_refuses_what_the_real_one_refuses() {
        let table = [
            ("--node-labels=a=b", "--hostname-override"),
            ("--hostname-override=a --node-labels=node-role.kubernetes.io/x=", "[node-role."),
            ("--hostname-override=a --register-with-taints=k=v", "invalid taint spec: k=v"),
            ("--hostname-override=a --register-with-taints=k=v:Never", "invalid taint spec"),
        ];
        for (arguments, expected) in table {
            let error = settle(arguments, json!({})).unwrap_err().to_string();
            assert!(error.contains(expected), "{arguments}: {error}");
        }
    }

    #[test]
    fn dropins_merge_maps_and_replace_lists() {
        let mut config = json!({"kubeReserved": {"cpu": "1"}, "l": [1, 2]});
        merge(&mut config, json!({"kubeReserved": {"memory": "2"}, "l": [3]}));
        assert_eq!(config, json!({"kubeReserved": {"cpu": "1", "memory": "2"}, "l": [3]}));
    }
}
