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

/// What names the cluster: two documents that differ here mean two clusters.
const CLUSTER: [&str; 4] = ["name", "apiServerEndpoint", "certificateAuthority", "cidr"];

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

/// What `setup-local-disks` takes, whatever the case of the letters; it fails on anything else.
const STRATEGIES: [&str; 3] = ["RAID0", "RAID10", "Mount"];

/// What may stay off the local disks; nodeadm drops anything else.
const MOUNTS: [&str; 3] = ["Containerd", "PodLogs", "SOCI"];

/// One field that nodeadm would drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownField {
    /// Its path, `spec.cluster.endpoint`.
    pub path: String,
    /// The known field beside it whose name is nearest.
    pub nearest: Option<&'static str>,
}

/// Every unknown field of a document, in order, and every value of a list that is none of those
/// that it may hold.
#[must_use]
pub fn unknown_fields(document: &Value) -> Vec<UnknownField> {
    let mut found = Vec::new();
    walk("", document, &mut found);
    let path = "spec.instance.localStorage.disabledMounts";
    for mount in at(document, path).and_then(Value::as_array).into_iter().flatten() {
        let Some(name) = mount.as_str().filter(|name| !MOUNTS.contains(name)) else { continue };
        found.push(UnknownField {
            path: format!("{path}: {name}"),
            nearest: nearest(name, &MOUNTS),
        });
    }
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

/// What would fail later, although nodeadm's own check lets it pass.
#[must_use]
pub fn refused_values(merged: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let path = "spec.instance.localStorage.strategy";
    let strategy = at(merged, path).and_then(Value::as_str).unwrap_or_default();
    // `none` is not in the API, and the script has it.
    let is_known = |name: &&str| name.eq_ignore_ascii_case(strategy);
    if !strategy.is_empty() && !STRATEGIES.iter().chain(&["none"]).any(is_known) {
        let known = STRATEGIES.join("`, `");
        found.push(format!("`{path}` is `{strategy}`, and must be one of `{known}`"));
    }
    let is_outpost = at(merged, "spec.cluster.enableOutpost") == Some(&Value::Bool(true));
    if is_outpost && at(merged, "spec.cluster.id").is_none_or(|id| id == "") {
        found.push("`spec.cluster.enableOutpost` needs `spec.cluster.id`".into());
    }
    found
}

/// The fields in which two documents name different clusters, with both values; a CA's is not shown.
#[must_use]
pub fn contradiction(earlier: &Value, later: &Value) -> Option<String> {
    let differs = CLUSTER.into_iter().find_map(|key| {
        let of = |document: &Value| {
            let value = at(document, "cluster").and_then(|cluster| cluster.get(key));
            value.and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let (one, other) = (of(earlier)?, of(later)?);
        (one != other).then_some((key, one, other))
    });
    differs.map(|(key, one, other)| match key {
        "certificateAuthority" => format!("two different `spec.cluster.{key}`"),
        _ => format!("`spec.cluster.{key}` is `{one}` and then `{other}`"),
    })
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
                             "localStorage": {"stratgy": "RAID0", "disabledMounts": ["SOCI", "PodLog"]}},
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
            ("spec.instance.localStorage.disabledMounts: PodLog", Some("PodLogs")),
        ];
        assert_eq!(found, expected.map(|(path, near)| (path.to_owned(), near)));
        assert_eq!(unknown_fields(&json!("text")), []);
    }

    #[test]
    fn values_that_the_scripts_refuse() {
        let of = |strategy: &str| {
            let storage = json!({"localStorage": {"strategy": strategy}});
            refused_values(&json!({"spec": {"instance": storage}}))
        };
        for fine in ["", "RAID0", "raid10", "Mount", "none"] {
            assert_eq!(of(fine), [""; 0], "{fine}");
        }
        assert!(of("RAID5")[0].contains("`RAID0`, `RAID10`, `Mount`"));
        let outpost = |id: Value| json!({"spec": {"cluster": {"enableOutpost": true, "id": id}}});
        assert_eq!(refused_values(&outpost(json!("x"))), [""; 0]);
        assert_eq!(refused_values(&outpost(json!(""))).len(), 1);
    }

    #[test]
    fn two_clusters_are_a_contradiction() {
        let of =
            |name: &str, ca: &str| json!({"cluster": {"name": name, "certificateAuthority": ca}});
        assert_eq!(contradiction(&of("a", "x"), &of("", "x")), None);
        let names = contradiction(&of("a", "x"), &of("b", "x")).unwrap();
        assert_eq!(names, "`spec.cluster.name` is `a` and then `b`");
        assert!(!contradiction(&of("a", "x"), &of("a", "y")).unwrap().contains("`x`"));
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
