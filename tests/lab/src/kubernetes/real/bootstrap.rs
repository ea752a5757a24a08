//! What EKS puts into every new cluster: its own RBAC, and here the groups that stand for its access
//! policies.

use serde_json::{Value, json};

use super::api::{Api, ApiError};
use super::webhook::policy_group;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Applies it all; again changes nothing.
pub(super) async fn apply(api: &Api) -> Result<(), ApiError> {
    for (resource, object) in objects() {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        api.apply(&format!("{RBAC}/{resource}/{name}"), &object).await?;
    }
    Ok(())
}

/// The objects with their resource's name, in order. Pure.
fn objects() -> Vec<(&'static str, Value)> {
    let everything =
        |verbs: &[&str]| json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": verbs}]);
    let signing = json!([{
        "apiGroups": ["certificates.k8s.io"],
        "resources": ["certificatesigningrequests"],
        "verbs": ["get", "list", "watch", "create"],
    }, {
        "apiGroups": ["certificates.k8s.io"],
        "resources": ["certificatesigningrequests/selfnodeserver"],
        "verbs": ["create"],
    }]);
    let admin = policy_group("AmazonEKSClusterAdminPolicy");
    let viewer = policy_group("AmazonEKSAdminViewPolicy");
    let nodes = ["system:bootstrappers", "system:nodes"];
    vec![
        ("clusterroles", role("eks:node-bootstrapper", &signing)),
        ("clusterroles", role("lab:admin-view", &everything(&["get", "list", "watch"]))),
        ("clusterrolebindings", binding("eks:node-bootstrapper", "eks:node-bootstrapper", &nodes)),
        ("clusterrolebindings", binding("lab:cluster-admin-policy", "cluster-admin", &[&admin])),
        ("clusterrolebindings", binding("lab:admin-view-policy", "lab:admin-view", &[&viewer])),
    ]
}

fn role(name: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": name}, "rules": rules,
    })
}

fn binding(name: &str, role: &str, groups: &[&str]) -> Value {
    let subjects: Vec<Value> = groups
        .iter()
        .map(|group| json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": group}))
        .collect();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_group_of_nodes_is_bound_to_more_than_asking_for_a_serving_certificate() {
        for (_, object) in objects().iter().filter(|(kind, _)| *kind == "clusterrolebindings") {
            let subjects = object["subjects"].as_array().unwrap();
            let of_nodes =
                subjects.iter().any(|s| s["name"].as_str().unwrap().starts_with("system:"));
            assert_eq!(of_nodes, object["roleRef"]["name"] == "eks:node-bootstrapper", "{object}");
        }
    }

    #[test]
    fn every_role_that_is_bound_exists() {
        let objects = objects();
        let roles: Vec<&Value> = objects.iter().map(|(_, o)| &o["metadata"]["name"]).collect();
        for (_, object) in objects.iter().filter(|(kind, _)| *kind == "clusterrolebindings") {
            let bound = &object["roleRef"]["name"];
            assert!(*bound == "cluster-admin" || roles.contains(&bound), "{bound}");
        }
    }
}
