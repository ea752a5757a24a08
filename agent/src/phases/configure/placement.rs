//! The labels and taints that kubelet registers with: where they come from, and what it refuses.
//!
//! kubelet's rules (`cmd/kubelet/app/options`, `kubelet/pkg/apis/well_known_labels.go`): a label of
//! Kubernetes' own namespaces that is not one of kubelet's ends kubelet at its start, and so does one
//! that is malformed. `--register-with-taints` replaces the configuration's list, and itself.

use serde_json::Value;

use super::lint::at;

/// Labels that kubelet may set on its own Node although they are Kubernetes'.
const KUBELET_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// One taint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value, often empty.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

impl Taint {
    /// As kubelet's flag writes it.
    #[must_use]
    pub fn as_flag(&self) -> String {
        let Self { key, value, effect } = self;
        if value.is_empty() { format!("{key}:{effect}") } else { format!("{key}={value}:{effect}") }
    }

    fn of_flag(text: &str) -> Option<Self> {
        let (name, effect) = text.trim().rsplit_once(':')?;
        let (key, value) = name.split_once('=').unwrap_or((name, ""));
        Some(Self { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() })
    }

    fn of_value(value: &Value) -> Option<Self> {
        let text =
            |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let taint = Self { key: text("key"), value: text("value"), effect: text("effect") };
        (!taint.key.is_empty()).then_some(taint)
    }
}

/// The values of a kubelet flag in the merged `spec.kubelet.flags`, in order: systemd splits what
/// nodeadm joins, so an entry may hold several, and a value may be the next one.
#[must_use]
pub fn flag_values(merged: &Value, flag: &str) -> Vec<String> {
    let flags = at(merged, "spec.kubelet.flags").and_then(Value::as_array);
    let words: Vec<&str> = flags
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .flat_map(str::split_whitespace)
        .map(|word| word.trim_matches(['"', '\'']))
        .collect();
    let mut values = Vec::new();
    for (number, word) in words.iter().enumerate() {
        match word.strip_prefix("--").and_then(|word| word.strip_prefix(flag)) {
            Some("") => values.extend(words.get(number + 1).map(|next| (*next).to_owned())),
            Some(rest) => values.extend(rest.strip_prefix('=').map(str::to_owned)),
            None => {}
        }
    }
    values
}

/// Every `--node-labels` of the merged configuration, key and value; kubelet adds them up.
#[must_use]
pub fn labels(merged: &Value) -> Vec<(String, String)> {
    let values = flag_values(merged, "node-labels");
    let pairs = values.iter().flat_map(|value| value.split(',')).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key.trim().to_owned(), value.trim().to_owned())
        })
        .collect()
}

/// What is wrong with the labels, one sentence each.
#[must_use]
pub fn refused_labels(labels: &[(String, String)]) -> Vec<String> {
    let problem = |(key, value): &(String, String)| {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let is_below = |suffix: &str| {
            namespace == suffix
                || namespace.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'))
        };
        let is_kubernetes = is_below("kubernetes.io") || is_below("k8s.io");
        let is_kubelets = KUBELET_LABELS.contains(&key.as_str())
            || is_below("kubelet.kubernetes.io")
            || is_below("node.kubernetes.io");
        if is_kubernetes && !is_kubelets {
            Some(format!("kubelet may not set the label `{key}` on its own Node"))
        } else if !is_name(name) || (key.contains('/') && !is_subdomain(namespace)) {
            Some(format!("`{key}` is no key of a label"))
        } else if !value.is_empty() && !is_name(value) {
            Some(format!("`{value}` is no value of a label (`{key}`)"))
        } else {
            None
        }
    };
    labels.iter().filter_map(problem).collect()
}

/// Up to 63 letters, digits, `-`, `_` and `.`, a letter or digit at both ends.
fn is_name(text: &str) -> bool {
    let ends = [text.bytes().next(), text.bytes().last()];
    text.len() <= 63
        && ends.iter().all(|byte| byte.is_some_and(|byte| byte.is_ascii_alphanumeric()))
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_subdomain(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// The taints of `kubelet.config.registerWithTaints`.
#[must_use]
pub fn config_taints(merged: &Value) -> Vec<Taint> {
    let list = at(merged, "spec.kubelet.config.registerWithTaints").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Taint::of_value).collect()
}

/// The taints of the last `--register-with-taints`; none when there is no such flag.
#[must_use]
pub fn flag_taints(merged: &Value) -> Option<Vec<Taint>> {
    let last = flag_values(merged, "register-with-taints").pop()?;
    Some(last.split(',').filter_map(Taint::of_flag).collect())
}

/// The taints that kubelet will register with.
#[must_use]
pub fn effective_taints(merged: &Value) -> Vec<Taint> {
    flag_taints(merged).unwrap_or_else(|| config_taints(merged))
}

/// Every taint that any of the specifications asks for, each once.
#[must_use]
pub fn asked_taints<'a>(specs: impl IntoIterator<Item = &'a Value>) -> Vec<Taint> {
    let mut asked: Vec<Taint> = Vec::new();
    for spec in specs {
        let merged = serde_json::json!({ "spec": spec });
        let flags = flag_values(&merged, "register-with-taints");
        let of_flags = flags.iter().flat_map(|value| value.split(',')).filter_map(Taint::of_flag);
        for taint in config_taints(&merged).into_iter().chain(of_flags) {
            if !asked.contains(&taint) {
                asked.push(taint);
            }
        }
    }
    asked
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn flags(flags: &[&str]) -> Value {
        json!({"spec": {"kubelet": {"flags": flags}}})
    }

    #[test]
    fn flags_are_read_as_they_will_be_split() {
        let merged =
            flags(&["--v=2 --node-labels=a=1,b=2", "--node-labels", "c=3", "--node-labelsx=d=4"]);
        let pairs = [("a", "1"), ("b", "2"), ("c", "3")];
        assert_eq!(labels(&merged), pairs.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(labels(&json!({})), []);
    }

    #[test]
    fn kubelets_own_labels_and_no_others_of_kubernetes() {
        for (label, is_refused) in [
            ("team=ml", false),
            ("rollcall.dev/pool=h100", false),
            ("node.kubernetes.io/lifecycle=spot", false),
            ("x.node.kubernetes.io/a=b", false),
            ("kubernetes.io/hostname=x", false),
            ("topology.kubernetes.io/zone=us-east-1a", false),
            ("eks.amazonaws.com/nodegroup=", false),
            ("notkubernetes.io/a=b", false),
            ("node-role.kubernetes.io/gpu=", true),
            ("kubernetes.io/role=gpu", true),
            ("node-restriction.kubernetes.io/a=b", true),
            ("scheduling.k8s.io/a=b", true),
            ("team=not ok", true),
            ("-team=ml", true),
            ("UPPER.dev/a=b", true),
            ("/a=b", true),
            ("a=_", true),
        ] {
            let (key, value) = label.split_once('=').unwrap();
            let refused = refused_labels(&[(key.to_owned(), value.to_owned())]);
            assert_eq!(!refused.is_empty(), is_refused, "{label}: {refused:?}");
        }
        let long = ("a".to_owned(), "x".repeat(64));
        assert_eq!(refused_labels(&[long]).len(), 1);
    }

    #[test]
    fn the_last_flag_replaces_everything() {
        let config = json!([{"key": "karpenter.sh/unregistered", "effect": "NoExecute"}]);
        let mut merged =
            flags(&["--register-with-taints=a=b:NoSchedule", "--register-with-taints=c:NoExecute"]);
        merged["spec"]["kubelet"]["config"] = json!({ "registerWithTaints": config });
        let text = |taints: Vec<Taint>| taints.iter().map(Taint::as_flag).collect::<Vec<_>>();
        assert_eq!(text(effective_taints(&merged)), ["c:NoExecute"]);
        let asked = asked_taints([&merged["spec"]]);
        assert_eq!(
            text(asked),
            ["karpenter.sh/unregistered:NoExecute", "a=b:NoSchedule", "c:NoExecute"]
        );
        merged["spec"]["kubelet"]["flags"] = json!([]);
        assert_eq!(text(effective_taints(&merged)), ["karpenter.sh/unregistered:NoExecute"]);
    }
}
