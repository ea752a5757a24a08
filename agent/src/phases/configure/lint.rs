//! What is wrong with a NodeConfig: nodeadm itself demands four values and drops the rest silently.

use serde_json::Value;

/// `apiVersion` and `kind` of the documents that nodeadm reads.
pub const API_VERSION: &str = "node.eks.aws/v1alpha1";
/// See [`API_VERSION`].
pub const KIND: &str = "NodeConfig";

/// What nodeadm demands, each not empty.
pub const REQUIRED: [&str; 4] = [
    "spec.cluster.name",
    "spec.cluster.apiServerEndpoint",
    "spec.cluster.certificateAuthority",
    "spec.cluster.cidr",
];

/// Every field of the API (`node.eks.aws/v1alpha1`); `*` takes any key and what is below it.
const FIELDS: [(&str, &[&str]); 11] = [
    ("", &["apiVersion", "kind", "metadata", "spec"]),
    ("metadata", &["*"]),
    ("spec", &["cluster", "containerd", "featureGates", "instance", "kubelet"]),
    (
        "spec.cluster",
        &["apiServerEndpoint", "certificateAuthority", "cidr", "enableOutpost", "id", "name"],
    ),
    ("spec.containerd", &["baseRuntimeSpec", "config"]),
    ("spec.featureGates", &["FastImagePull", "InstanceIdNodeName"]),
    ("spec.instance", &["environment", "localStorage", "network"]),
    ("spec.instance.localStorage", &["disabledMounts", "mountPath", "strategy"]),
    ("spec.instance.network", &["domains", "nameservers"]),
    ("spec.kubelet", &["config", "flags", "maxPodsExpression"]),
    ("spec.instance.environment", &["*"]),
];

/// One field that nodeadm would drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownField {
    /// Its path, `spec.cluster.endpoint`.
    pub path: String,
    /// The known field beside it whose name is nearest.
    pub nearest: Option<&'static str>,
}

/// Every unknown field of a document, in order.
#[must_use]
pub fn unknown_fields(document: &Value) -> Vec<UnknownField> {
    let mut found = Vec::new();
    walk("", document, &mut found);
    found
}

fn walk(path: &str, value: &Value, found: &mut Vec<UnknownField>) {
    let Some((_, fields)) = FIELDS.iter().find(|(parent, _)| *parent == path) else { return };
    let Value::Object(map) = value else { return };
    if *fields == ["*"] {
        return;
    }
    for (key, value) in map {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if fields.contains(&key.as_str()) {
            walk(&path, value, found);
        } else {
            found.push(UnknownField { path, nearest: nearest(key, fields) });
        }
    }
}

/// The name among `known` that is most like `name`, when one is like it at all.
#[must_use]
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    const ALIKE: f64 = 0.75;
    let likeness =
        |other: &str| strsim::jaro_winkler(&name.to_ascii_lowercase(), &other.to_ascii_lowercase());
    let best = known.iter().map(|other| (likeness(other), *other));
    best.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(like, _)| *like >= ALIKE).map(|(_, name)| name)
}

/// The required values that are missing or empty.
#[must_use]
pub fn missing(document: &Value) -> Vec<&'static str> {
    let is_there = |path: &str| match at(document, path) {
        Some(Value::String(text)) => !text.trim().is_empty(),
        Some(Value::Null) | None => false,
        Some(_) => true,
    };
    REQUIRED.into_iter().filter(|path| !is_there(path)).collect()
}

/// The value at a dotted path.
#[must_use]
pub fn at<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(document, |value, key| value.get(key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_come_with_the_nearest_known_one() {
        let document = json!({
            "apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "x"},
            "spec": {
                "cluster": {"name": "a", "apiServerEndPoint": "https://x", "zzz": 1},
                "kubelet": {"config": {"anything": {"goes": 1}}, "flag": []},
                "featureGates": {"InstanceIDNodeName": true},
                "instance": {"environment": {"kubelet": {"X": "1"}},
                             "localStorage": {"stratgy": "RAID0"}},
            },
        });
        let found: Vec<_> =
            unknown_fields(&document).into_iter().map(|f| (f.path, f.nearest)).collect();
        let expected = [
            ("spec.cluster.apiServerEndPoint", Some("apiServerEndpoint")),
            ("spec.cluster.zzz", None),
            ("spec.kubelet.flag", Some("flags")),
            ("spec.featureGates.InstanceIDNodeName", Some("InstanceIdNodeName")),
            ("spec.instance.localStorage.stratgy", Some("strategy")),
        ];
        assert_eq!(found, expected.map(|(path, near)| (path.to_owned(), near)));
        assert_eq!(unknown_fields(&json!("text")), []);
    }

    #[test]
    fn the_four_values_that_nodeadm_demands() {
        let whole = json!({"spec": {"cluster": {
            "name": "a", "apiServerEndpoint": "b", "certificateAuthority": "c", "cidr": "d"}}});
        assert_eq!(missing(&whole), [""; 0]);
        let partial = json!({"spec": {"cluster": {"name": " ", "apiServerEndpoint": null}}});
        assert_eq!(missing(&partial), REQUIRED);
        assert_eq!(missing(&Value::Null), REQUIRED);
    }
}
