//! The part of API validation that a wrong manifest of ours would run into. Pure.

use serde_json::Value;

use super::registry::{
    CLUSTERROLEBINDINGS, DAEMONSETS, DEPLOYMENTS, NODES, PODS, ROLEBINDINGS, ResourceType,
};
use super::selector::Labels;
use super::status::ApiError;

/// Refuses an object that the API server would refuse with `Invalid`, with all that is wrong with it.
pub(super) fn check(kind: &ResourceType, object: &Value) -> Result<(), ApiError> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let mut problems = Vec::new();
    problems.extend(name_problem(name));
    match kind {
        kind if *kind == DAEMONSETS || *kind == DEPLOYMENTS => {
            problems.extend(selector_problem(&object["spec"]));
            let pod = &object["spec"]["template"]["spec"];
            problems.extend(container_problems("spec.template.spec", pod));
        }
        kind if *kind == PODS => problems.extend(container_problems("spec", &object["spec"])),
        kind if *kind == NODES => problems.extend(taint_problems(&object["spec"]["taints"])),
        kind if *kind == CLUSTERROLEBINDINGS || *kind == ROLEBINDINGS => {
            problems.extend(binding_problem(object));
        }
        _ => {}
    }
    if problems.is_empty() { Ok(()) } else { Err(ApiError::invalid(kind, name, &problems)) }
}

fn name_problem(name: &str) -> Option<String> {
    // The strictest rule that holds for all types served here; RBAC also allows colons.
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.:".contains(c);
    (!name.is_empty() && !name.chars().all(legal)).then(|| {
        format!(
            "metadata.name: Invalid value: \"{name}\": a lowercase RFC 1123 subdomain must consist \
             of lower case alphanumeric characters, '-' or '.', and must start and end with an \
             alphanumeric character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        )
    })
}

/// A selector that does not choose the template's own pods; none at all chooses nothing.
fn selector_problem(spec: &Value) -> Option<String> {
    let labels = &spec["template"]["metadata"]["labels"];
    let empty =
        spec["selector"]["matchLabels"].is_null() && spec["selector"]["matchExpressions"].is_null();
    let chosen = !empty && Labels::from_object(&spec["selector"]).matches(labels);
    (!chosen).then(|| {
        format!(
            "spec.template.metadata.labels: Invalid value: {labels}: `selector` does not match \
             template `labels`"
        )
    })
}

fn container_problems(path: &str, spec: &Value) -> Vec<String> {
    let Some(list) = spec["containers"].as_array().filter(|list| !list.is_empty()) else {
        return vec![format!("{path}.containers: Required value")];
    };
    let each = list.iter().enumerate();
    each.flat_map(|(at, container)| {
        let missing = |field: &&str| container[*field].as_str().unwrap_or_default().is_empty();
        let fields = ["name", "image"].into_iter().filter(missing);
        fields.map(move |field| format!("{path}.containers[{at}].{field}: Required value"))
    })
    .collect()
}

fn taint_problems(taints: &Value) -> Vec<String> {
    let effect = |taint: &Value| taint["effect"].as_str().unwrap_or_default().to_owned();
    let each = taints.as_array().into_iter().flatten().map(effect).enumerate();
    each.filter(|(_, effect)| {
        !matches!(effect.as_str(), "NoSchedule" | "PreferNoSchedule" | "NoExecute")
    })
    .map(|(at, effect)| format!("metadata.taints[{at}].effect: Unsupported value: \"{effect}\""))
    .collect()
}

fn binding_problem(binding: &Value) -> Option<String> {
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
            (json!({"metadata": {"name": "d"}, "spec": {}}), "Invalid value: null: `selector`"),
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
