//! NodeConfig v1alpha1 as nodeadm types it: unknown fields are dropped, wrong types are fatal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

/// Why a configuration is not one.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum ConfigError {
    #[error("failed to decode config: {0}")]
    Decode(String),
    #[error("no kind \"{kind}\" is registered for version \"{version}\"")]
    Kind { version: String, kind: String },
    #[error("illegal base64 data in spec.cluster.certificateAuthority")]
    CertificateAuthority,
    #[error("failed to parse containerd config as TOML: {0}")]
    Toml(String),
    #[error("{0}")]
    Invalid(&'static str),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NodeConfigSpec {
    pub(super) cluster: Cluster,
    pub(super) containerd: Containerd,
    pub(super) instance: InstanceOptions,
    pub(super) kubelet: Kubelet,
    pub(super) feature_gates: BTreeMap<String, bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Cluster {
    pub(super) name: String,
    pub(super) api_server_endpoint: String,
    pub(super) certificate_authority: String,
    pub(super) cidr: String,
    pub(super) enable_outpost: Option<bool>,
    pub(super) id: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Containerd {
    pub(super) config: String,
    pub(super) base_runtime_spec: Map<String, Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct InstanceOptions {
    pub(super) local_storage: LocalStorage,
    pub(super) environment: BTreeMap<String, Option<BTreeMap<String, String>>>,
    pub(super) network: Network,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LocalStorage {
    pub(super) strategy: String,
    pub(super) mount_path: String,
    pub(super) disabled_mounts: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Network {
    pub(super) nameservers: Vec<String>,
    pub(super) domains: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Kubelet {
    pub(super) config: Map<String, Value>,
    pub(super) flags: Vec<String>,
    pub(super) max_pods_expression: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    api_version: String,
    kind: String,
    spec: NodeConfigSpec,
}

/// Reads one document; of several in one YAML stream only the first counts, as in nodeadm, and what
/// starts with a brace is JSON.
pub(super) fn parse(text: &[u8]) -> Result<NodeConfigSpec, ConfigError> {
    let decode = |error: &dyn std::fmt::Display| ConfigError::Decode(error.to_string());
    let text = std::str::from_utf8(text).map_err(|e| decode(&e))?;
    let value: Value = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|e| decode(&e))?
    } else {
        let first = serde_yaml::Deserializer::from_str(text)
            .next()
            .ok_or_else(|| ConfigError::Decode("empty document".into()))?;
        Value::deserialize(first).map_err(|e| decode(&e))?
    };
    let document: Document =
        serde_json::from_value(as_go_reads("", value)).map_err(|e| decode(&e))?;
    if document.kind != "NodeConfig" || document.api_version != "node.eks.aws/v1alpha1" {
        let (version, kind) = (document.api_version, document.kind);
        return Err(ConfigError::Kind { version, kind });
    }
    document.spec.decodable()?;
    Ok(document.spec)
}

/// Null is as good as absent to Go, empty in a list or a map of texts, and itself in a free map.
fn as_go_reads(path: &str, value: Value) -> Value {
    match (path, value) {
        ("spec.kubelet.config" | "spec.containerd.baseRuntimeSpec", value) => value,
        ("spec.featureGates", Value::Object(map)) => each(map, |value| match value {
            Value::Null => false.into(),
            value => value,
        }),
        ("spec.instance.environment", Value::Object(map)) => each(map, |service| match service {
            Value::Object(variables) => each(variables, text),
            other => other,
        }),
        (_, Value::Object(map)) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            let read = kept.map(|(key, value)| {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                (key, as_go_reads(&path, value))
            });
            Value::Object(read.collect())
        }
        (_, Value::Array(list)) => list.into_iter().map(text).collect(),
        (_, value) => value,
    }
}

fn each(map: Map<String, Value>, read: impl Fn(Value) -> Value) -> Value {
    Value::Object(map.into_iter().map(|(key, value)| (key, read(value))).collect())
}

fn text(value: Value) -> Value {
    if value.is_null() { "".into() } else { value }
}

impl NodeConfigSpec {
    fn decodable(&self) -> Result<(), ConfigError> {
        self.ca().map(drop)
    }

    /// The cluster's certificate authority, decoded.
    pub(super) fn ca(&self) -> Result<Vec<u8>, ConfigError> {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD
            .decode(self.cluster.certificate_authority.trim())
            .map_err(|_| ConfigError::CertificateAuthority)
    }

    /// nodeadm's whole validation.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let cluster = &self.cluster;
        let missing = [
            (cluster.name.is_empty(), "Name is missing in cluster configuration"),
            (
                cluster.api_server_endpoint.is_empty(),
                "Apiserver endpoint is missing in cluster configuration",
            ),
            (
                cluster.certificate_authority.is_empty(),
                "Certificate authority is missing in cluster configuration",
            ),
            (cluster.cidr.is_empty(), "CIDR is missing in cluster configuration"),
            (
                cluster.enable_outpost == Some(true) && cluster.id.is_empty(),
                "Cluster ID is missing in cluster configuration",
            ),
        ];
        match missing.into_iter().find(|(is_missing, _)| *is_missing) {
            Some((_, message)) => Err(ConfigError::Invalid(message)),
            None => Ok(()),
        }
    }

    /// The variables that the configuration gives a service; `default` is for all of them.
    pub(super) fn environment_of(&self, service: &str) -> BTreeMap<String, String> {
        self.instance.environment.get(service).cloned().flatten().unwrap_or_default()
    }

    pub(super) fn gate(&self, name: &str) -> bool {
        self.feature_gates.get(name).copied().unwrap_or(false)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) const WHOLE: &str = "apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  cluster:\n    \
        name: prod\n    apiServerEndpoint: https://localhost:1\n    certificateAuthority: Y2E=\n    cidr: 172.20.0.0/16\n";

    #[test]
    fn unknown_fields_are_dropped_and_wrong_ones_are_fatal() {
        let odd = format!("{WHOLE}  colour: red\n  kubelet: {{flags: null, nonsense: 1}}\n");
        assert_eq!(parse(odd.as_bytes()).unwrap(), parse(WHOLE.as_bytes()).unwrap());
        let second = format!("{WHOLE}---\nnot: a config\n");
        assert_eq!(parse(second.as_bytes()).unwrap(), parse(WHOLE.as_bytes()).unwrap());
        let json = r#"{"apiVersion":"node.eks.aws/v1alpha1","kind":"NodeConfig","spec":{"instance":{"localStorage":{"strategy":"Bogus"}}}}"#;
        assert_eq!(parse(json.as_bytes()).unwrap().instance.local_storage.strategy, "Bogus");
        for (text, expected) in [
            (format!("{WHOLE}  kubelet: {{flags: 3}}\n"), "failed to decode"),
            (WHOLE.replace("Y2E=", "'*'"), "illegal base64"),
            (WHOLE.replace("v1alpha1", "v2"), "no kind"),
            ("a: [".to_owned(), "failed to decode"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn validation_is_nodeadms() {
        let spec = parse(WHOLE.as_bytes()).unwrap();
        assert_eq!(spec.validate(), Ok(()));
        type Change = fn(&mut Cluster);
        let cases: [(Change, &str); 5] = [
            (|c| c.name.clear(), "Name is missing in cluster configuration"),
            (
                |c| c.api_server_endpoint.clear(),
                "Apiserver endpoint is missing in cluster configuration",
            ),
            (
                |c| c.certificate_authority.clear(),
                "Certificate authority is missing in cluster configuration",
            ),
            (|c| c.cidr.clear(), "CIDR is missing in cluster configuration"),
            (|c| c.enable_outpost = Some(true), "Cluster ID is missing in cluster configuration"),
        ];
        for (change, message) in cases {
            let mut broken = spec.clone();
            change(&mut broken.cluster);
            assert_eq!(broken.validate(), Err(ConfigError::Invalid(message)));
        }
    }
}
