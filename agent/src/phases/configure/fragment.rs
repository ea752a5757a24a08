//! What the agent adds to the NodeConfig: one file of its own in `/etc/eks/nodeadm.d`, the last by
//! name, so that what it says of taints is the union of what everybody asks for.

use contract::agent_config::NodeAdditions;
use contract::names::NODEADM_DROPIN_DIR;
use serde_json::{Map, Value, json};

use super::lint::{API_VERSION, KIND};
use super::placement::{self, Taint};
use crate::host::Root;
use crate::host::files::{self, FileError};

/// The file. JSON, because its scalars mean the same to every reader.
pub const PATH: &str = "/etc/eks/nodeadm.d/99-rollcall.json";

/// The file's text; none when there is nothing to add. `others` is what nodeadm would merge
/// without it, `asked` every taint that those documents name.
#[must_use]
pub fn wanted(additions: &NodeAdditions, others: &Value, asked: &[Taint]) -> Option<String> {
    if *additions == NodeAdditions::default() {
        return None;
    }
    let mut config: Map<String, Value> = additions.kubelet_config.clone();
    let mut flags = Vec::new();
    if !additions.labels.is_empty() {
        let pairs = additions.labels.iter().map(|(key, value)| format!("{key}={value}"));
        flags.push(format!("--node-labels={}", pairs.collect::<Vec<_>>().join(",")));
    }
    if !additions.startup_taints.is_empty() {
        let taints = union(asked, additions);
        // The flag replaces the list, so where somebody uses it, so must we.
        if placement::flag_taints(others).is_some() {
            let all: Vec<_> = taints.iter().map(Taint::as_flag).collect();
            flags.push(format!("--register-with-taints={}", all.join(",")));
        } else {
            let all = taints.iter().map(
                |Taint { key, value, effect }| json!({"key": key, "value": value, "effect": effect}),
            );
            config.insert("registerWithTaints".into(), all.collect());
        }
    }
    let kubelet = json!({"config": config, "flags": flags});
    let document = json!({"apiVersion": API_VERSION, "kind": KIND, "spec": {"kubelet": kubelet}});
    Some(format!("{document:#}\n"))
}

fn union(asked: &[Taint], additions: &NodeAdditions) -> Vec<Taint> {
    let mut taints = asked.to_vec();
    for ours in &additions.startup_taints {
        let taint = Taint {
            key: ours.key.clone(),
            value: ours.value.clone(),
            effect: ours.effect.name().to_owned(),
        };
        if !taints.contains(&taint) {
            taints.push(taint);
        }
    }
    taints
}

/// Makes the file what it should be; says whether it was something else. nodeadm stops at a missing
/// directory, so that is made too.
///
/// # Errors
/// When it cannot be written or removed.
pub fn apply(root: &Root, wanted: Option<&str>) -> Result<bool, FileError> {
    let path = root.path(PATH);
    files::make_dir(&root.path(NODEADM_DROPIN_DIR), 0o755)?;
    let found = files::read(&path).ok();
    if found.as_deref() == wanted.map(str::as_bytes) {
        return Ok(false);
    }
    match wanted {
        Some(text) => files::write_atomic(&path, text.as_bytes(), 0o644)?,
        None => files::remove(&path)?,
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use contract::agent_config::{NodeTaint, TaintEffect};

    use super::*;

    fn additions() -> NodeAdditions {
        let taint = NodeTaint {
            key: "rollcall.dev/joining".into(),
            value: String::new(),
            effect: TaintEffect::NoSchedule,
        };
        NodeAdditions {
            labels: [("team".to_owned(), "ml".to_owned()), ("a".to_owned(), "1".to_owned())].into(),
            startup_taints: vec![taint],
            kubelet_config: Map::from_iter([("maxPods".to_owned(), json!(64))]),
        }
    }

    fn of(others: &Value) -> Value {
        let asked = placement::asked_taints([&others["spec"]]);
        let text = wanted(&additions(), others, &asked).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["spec"]["kubelet"].clone()
    }

    const KARPENTER: &str = "karpenter.sh/unregistered";

    #[test]
    fn taints_are_the_union_in_the_list_or_in_the_flag() {
        let list = json!([{"key": KARPENTER, "effect": "NoExecute"}]);
        let others = json!({"spec": {"kubelet": {"config": {"registerWithTaints": list}}}});
        let kubelet = of(&others);
        let keys: Vec<_> = kubelet["config"]["registerWithTaints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|taint| taint["key"].as_str().unwrap())
            .collect();
        assert_eq!(keys, [KARPENTER, "rollcall.dev/joining"]);
        assert_eq!(kubelet["flags"], json!(["--node-labels=a=1,team=ml"]));
        assert_eq!(kubelet["config"]["maxPods"], 64);

        let mut flagged = others.clone();
        flagged["spec"]["kubelet"]["flags"] = json!(["--register-with-taints=x=y:NoSchedule"]);
        assert_eq!(
            of(&flagged)["flags"][1],
            "--register-with-taints=karpenter.sh/unregistered:NoExecute,x=y:NoSchedule,rollcall.dev/joining:NoSchedule"
        );
    }

    #[test]
    fn the_file_is_ours_alone_and_goes_when_it_is_not_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert_eq!(wanted(&NodeAdditions::default(), &Value::Null, &[]), None);
        assert!(!apply(&root, None).unwrap());
        assert!(root.path(NODEADM_DROPIN_DIR).is_dir());
        let text = wanted(&additions(), &Value::Null, &[]).unwrap();
        assert!(apply(&root, Some(&text)).unwrap());
        assert!(!apply(&root, Some(&text)).unwrap());
        assert!(PATH.starts_with(NODEADM_DROPIN_DIR));
        let facts = super::super::gather(&root, None);
        assert!(facts.sources[0].is_ours() && facts.merged.is_object());
        assert_eq!(facts.without_ours(), Value::Null);
        assert!(apply(&root, None).unwrap());
        assert_eq!(files::names_in(&root.path(NODEADM_DROPIN_DIR)), [""; 0]);
    }
}
