//! The part of API validation that a wrong manifest of ours would run into. Pure.

use serde_json::Value;

use super::registry::{
    CLUSTERROLEBINDINGS, DAEMONSETS, DEPLOYMENTS, NODES, PODS, ROLEBINDINGS, ResourceType,
};
use super::selector::Labels;
use super::status::ApiError;

/// Refuses an object that the API server would refuse with `Invalid`.
pub(super) fn check(kind: &ResourceType, object: &Value) -> Result<(), ApiError> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let problem = match kind {
        kind if *kind == DAEMONSETS || *kind == DEPLOYMENTS => workload(&object["spec"]),
        kind if *kind == PODS => containers("spec", &object["spec"]),
        kind if *kind == NODES => taints(&object["spec"]["taints"]),
        kind if *kind == CLUSTERROLEBINDINGS || *kind == ROLEBINDINGS => binding(object),
        _ => None,
    };
    let problem = problem.or_else(|| name_problem(name));
    problem.map_or(Ok(()), |why| Err(ApiError::invalid(kind, name, &why)))
}

fn name_problem(name: &str) -> Option<String> {
    // The strictest rule that holds for all types served here; RBAC also allows colons.
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.:".contains(c);
    (!name.is_empty() && !name.chars().all(legal)).then(|| {
        format!(
            "metadata.name: Invalid value: \"{name}\": a lowercase RFC 1123 subdomain must consist \
             of lower case alphanumeric characters, '-' or '.'"
        )
    })
}

fn workload(spec: &Value) -> Option<String> {
    let labels = &spec["template"]["metadata"]["labels"];
    if spec["selector"]["matchLabels"].is_null() && spec["selector"]["matchExpressions"].is_null() {
        return Some("spec.selector: Required value".to_owned());
    }
    if !Labels::from_object(&spec["selector"]).matches(labels) {
        return Some(format!(
            "spec.template.metadata.labels: Invalid value: {labels}: `selector` does not match \
             template `labels`"
        ));
    }
    containers("spec.template.spec", &spec["template"]["spec"])
}

fn containers(path: &str, spec: &Value) -> Option<String> {
    let Some(list) = spec["containers"].as_array().filter(|list| !list.is_empty()) else {
        return Some(format!("{path}.containers: Required value"));
    };
    for (at, container) in list.iter().enumerate() {
        for field in ["name", "image"] {
            if container[field].as_str().unwrap_or_default().is_empty() {
                return Some(format!("{path}.containers[{at}].{field}: Required value"));
            }
        }
    }
    None
}

fn taints(taints: &Value) -> Option<String> {
    for (at, taint) in taints.as_array().into_iter().flatten().enumerate() {
        let effect = taint["effect"].as_str().unwrap_or_default();
        if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
            return Some(format!("metadata.taints[{at}].effect: Unsupported value: \"{effect}\""));
        }
    }
    None
}

fn binding(binding: &Value) -> Option<String> {
    let role = binding["roleRef"]["name"].as_str().unwrap_or_default();
    role.is_empty().then(|| "roleRef.name: Required value".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn manifests_that_the_api_server_refuses_are_refused() {
        let spec = |labels: Value, containers: Value| {
            json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}}})
        };
        let good = json!([{"name": "c", "image": "i"}]);
        assert!(check(&DAEMONSETS, &spec(json!({"a": "b"}), good.clone())).is_ok());
        let table = [
            (spec(json!({"a": "c"}), good), "`selector` does not match"),
            (spec(json!({"a": "b"}), json!([])), "spec.template.spec.containers: Required value"),
            (
                spec(json!({"a": "b"}), json!([{"name": "c"}])),
                "spec.template.spec.containers[0].image: Required value",
            ),
            (json!({"metadata": {"name": "d"}, "spec": {}}), "spec.selector: Required value"),
        ];
        for (object, expected) in table {
            let refused = check(&DAEMONSETS, &object).unwrap_err();
            assert_eq!(refused.code, 422);
            assert!(refused.message.contains(expected), "{}", refused.message);
        }
        assert!(check(&NODES, &json!({"metadata": {"name": "Upper"}})).is_err());
        let taint = json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "k"}]}});
        assert!(check(&NODES, &taint).is_err());
    }
}
