//! May they: the node authorizer, RBAC over what is in the store, and EKS's access policies.
//!
//! The order is EKS's: any of the three may allow, none can forbid what another allows.

use serde_json::Value;

use super::registry::{CLUSTERROLEBINDINGS, CLUSTERROLES, ROLEBINDINGS, ROLES};
use super::store::Store;
use crate::kubernetes::authn::User;

/// What is asked for, as authorisation sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'a> {
    pub(super) verb: &'a str,
    pub(super) group: &'a str,
    /// `nodes`, or `nodes/status`.
    pub(super) resource: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    /// Set for a request outside the resources.
    pub(super) path: Option<&'a str>,
    /// Whether a list or watch is narrowed to what is on this node.
    pub(super) own_only: bool,
    /// For an object request: whether the pod or ResourceSlice is the asking node's.
    pub(super) own: bool,
}

/// Allowed, or not with the node authorizer's explanation, if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    Allow,
    Deny(String),
}

/// Decides one request.
pub(super) fn authorize(user: &User, asked: &Attributes<'_>, store: &Store) -> Decision {
    if access_policy_allows(user, asked)
        || baseline_allows(asked)
        || rbac_allows(user, asked, store)
    {
        return Decision::Allow;
    }
    match user.node_name() {
        Some(node) => node_authorizer(node, asked),
        None => Decision::Deny(String::new()),
    }
}

/// EKS access policies. Only those whose rights are plain here: all, all to read.
fn access_policy_allows(user: &User, asked: &Attributes<'_>) -> bool {
    let reads = matches!(asked.verb, "get" | "list" | "watch");
    user.groups.iter().any(|group| group == "system:masters")
        || user.policies.iter().any(|policy| match policy.as_str() {
            "AmazonEKSClusterAdminPolicy" => true,
            "AmazonEKSAdminViewPolicy" => reads,
            _ => false,
        })
}

/// system:basic-user, system:discovery and system:public-info-viewer, which every user has.
fn baseline_allows(asked: &Attributes<'_>) -> bool {
    if let Some(path) = asked.path {
        let open = ["/api", "/apis", "/openapi", "/version", "/healthz", "/livez", "/readyz"];
        return asked.verb == "get"
            && open.iter().any(|prefix| {
                path.strip_prefix(prefix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
    }
    let reviews = ["selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"];
    asked.verb == "create" && reviews.contains(&asked.resource)
}

/// The node authorizer and the rules of system:node, with the pods, leases and Node object of this
/// node alone (`AuthorizeNodeWithSelectors`, on since 1.32).
fn node_authorizer(node: &str, asked: &Attributes<'_>) -> Decision {
    let read = matches!(asked.verb, "get" | "list" | "watch");
    let write = matches!(asked.verb, "create" | "update" | "patch");
    let allowed = match (asked.group, asked.resource) {
        ("", "nodes") if read && asked.name != node => {
            return Decision::Deny(foreign_node(node, asked.name));
        }
        ("", "nodes") => read || write,
        ("", "nodes/status" | "pods/status") => matches!(asked.verb, "update" | "patch"),
        ("" | "events.k8s.io", "events") => write,
        ("", "services") | ("node.k8s.io", "runtimeclasses") => read,
        ("", "pods") if matches!(asked.verb, "list" | "watch") => {
            if !asked.own_only {
                let why = "can only list/watch pods with spec.nodeName field selector";
                return Decision::Deny(why.to_owned());
            }
            true
        }
        ("", "pods") if asked.verb == "get" => {
            if !asked.own {
                return Decision::Deny(unrelated(node));
            }
            true
        }
        ("", "pods") => matches!(asked.verb, "create" | "delete"),
        ("", "configmaps" | "secrets") => return Decision::Deny(pod_object(node, asked, read)),
        ("coordination.k8s.io", "leases") => return lease(node, asked),
        ("resource.k8s.io", "resourceslices") => return resource_slice(node, asked),
        _ => false,
    };
    if allowed { Decision::Allow } else { Decision::Deny(String::new()) }
}

/// Its own ResourceSlices; what a new one says of its node admission compares.
fn resource_slice(node: &str, asked: &Attributes<'_>) -> Decision {
    match asked.verb {
        "create" => Decision::Allow,
        "list" | "watch" | "deletecollection" if asked.own_only => Decision::Allow,
        "list" | "watch" | "deletecollection" => {
            let why =
                "can only list/watch/deletecollection resourceslices with nodeName field selector";
            Decision::Deny(why.to_owned())
        }
        "get" | "update" | "patch" | "delete" if asked.own => Decision::Allow,
        _ => Decision::Deny(unrelated(node)),
    }
}

fn foreign_node(node: &str, name: &str) -> String {
    if name.is_empty() {
        format!("node '{node}' cannot read all nodes, only its own Node object")
    } else {
        format!("node '{node}' cannot read '{name}', only its own Node object")
    }
}

fn unrelated(node: &str) -> String {
    format!("no relationship found between node '{node}' and this object")
}

/// Objects that a node reads for its pods. No pod of the lab needs one, so none is related.
fn pod_object(node: &str, asked: &Attributes<'_>, read: bool) -> String {
    if !read {
        "can only read resources of this type".to_owned()
    } else if asked.namespace.is_empty() {
        "can only read namespaced object of this type".to_owned()
    } else if asked.name.is_empty() {
        "No Object name found".to_owned()
    } else {
        unrelated(node)
    }
}

fn lease(node: &str, asked: &Attributes<'_>) -> Decision {
    if !matches!(asked.verb, "get" | "create" | "update" | "patch" | "delete") {
        let why = "can only get, create, update, patch, or delete a node lease";
        return Decision::Deny(why.to_owned());
    }
    if asked.namespace != "kube-node-lease" {
        let why = "can only access leases in the \"kube-node-lease\" system namespace";
        return Decision::Deny(why.to_owned());
    }
    // A create has no name in its path; admission compares the object's.
    if asked.verb != "create" && asked.name != node {
        let why = "can only access node lease with the same name as the requesting node";
        return Decision::Deny(why.to_owned());
    }
    Decision::Allow
}

/// RBAC: any binding that names the user and whose role has a rule for the request.
fn rbac_allows(user: &User, asked: &Attributes<'_>, store: &Store) -> bool {
    let cluster_wide = store.list(&CLUSTERROLEBINDINGS, "").objects;
    let granted = cluster_wide.iter().filter(|binding| binds(binding, user));
    if granted.into_iter().any(|binding| role_allows(binding, "", asked, store)) {
        return true;
    }
    if asked.namespace.is_empty() {
        return false;
    }
    let local = store.list(&ROLEBINDINGS, asked.namespace).objects;
    local
        .iter()
        .filter(|binding| binds(binding, user))
        .any(|binding| role_allows(binding, asked.namespace, asked, store))
}

fn binds(binding: &Value, user: &User) -> bool {
    binding["subjects"].as_array().into_iter().flatten().any(|subject| {
        let name = subject["name"].as_str().unwrap_or_default();
        match subject["kind"].as_str() {
            Some("User") => name == user.name,
            Some("Group") => user.groups.iter().any(|group| group == name),
            _ => false,
        }
    })
}

fn role_allows(binding: &Value, namespace: &str, asked: &Attributes<'_>, store: &Store) -> bool {
    let name = binding["roleRef"]["name"].as_str().unwrap_or_default();
    let role = match binding["roleRef"]["kind"].as_str() {
        Some("ClusterRole") => store.get(&CLUSTERROLES, "", name),
        Some("Role") if !namespace.is_empty() => store.get(&ROLES, namespace, name),
        _ => None,
    };
    let Some(role) = role else { return false };
    role["rules"].as_array().into_iter().flatten().any(|rule| rule_allows(rule, asked))
}

/// Whether one RBAC rule covers the request.
fn rule_allows(rule: &Value, asked: &Attributes<'_>) -> bool {
    let has = |field: &str, value: &str| {
        let items = rule[field].as_array().into_iter().flatten();
        items.filter_map(Value::as_str).any(|item| item == "*" || item == value)
    };
    if !has("verbs", asked.verb) {
        return false;
    }
    if let Some(path) = asked.path {
        let urls = rule["nonResourceURLs"].as_array().into_iter().flatten();
        return urls.filter_map(Value::as_str).any(|url| match url.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => url == path,
        });
    }
    let any_status = asked.resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
    let resource =
        has("resources", asked.resource) || any_status.is_some_and(|any| has("resources", &any));
    let named = match rule["resourceNames"].as_array() {
        Some(names) if !names.is_empty() => {
            names.iter().filter_map(Value::as_str).any(|name| name == asked.name)
        }
        _ => true,
    };
    has("apiGroups", asked.group) && resource && named
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node() -> User {
        User {
            name: "system:node:a".into(),
            uid: String::new(),
            groups: vec!["system:nodes".into(), "system:authenticated".into()],
            extra: Vec::new(),
            policies: Vec::new(),
            session: "i-1".into(),
        }
    }

    fn asked<'a>(verb: &'a str, group: &'a str, resource: &'a str, at: &'a str) -> Attributes<'a> {
        let (namespace, name) = at.split_once('/').unwrap();
        Attributes {
            verb,
            group,
            resource,
            namespace,
            name,
            path: None,
            own_only: false,
            own: false,
        }
    }

    #[test]
    fn a_node_may_what_system_node_may_and_only_for_itself() {
        let store = Store::default();
        let table = [
            ("get", "", "nodes", "/a", true),
            ("get", "", "nodes", "/b", false),
            ("list", "", "nodes", "/", false),
            ("create", "", "nodes", "/", true),
            ("patch", "", "nodes/status", "/a", true),
            ("delete", "", "nodes", "/a", false),
            ("list", "", "pods", "/", false),
            ("create", "", "events", "default/", true),
            ("get", "", "events", "default/e", false),
            ("list", "", "services", "/", true),
            ("update", "coordination.k8s.io", "leases", "kube-node-lease/a", true),
            ("update", "coordination.k8s.io", "leases", "kube-node-lease/b", false),
            ("update", "coordination.k8s.io", "leases", "default/a", false),
            ("get", "apps", "daemonsets", "kube-system/aws-node", false),
            ("get", "", "secrets", "kube-system/x", false),
            ("list", "resource.k8s.io", "resourceslices", "/", false),
            ("get", "resource.k8s.io", "resourceslices", "/s", false),
            ("create", "resource.k8s.io", "resourceslices", "/", true),
            ("create", "authentication.k8s.io", "selfsubjectreviews", "/", true),
            ("create", "rbac.authorization.k8s.io", "clusterroles", "/", false),
        ];
        for (verb, group, resource, at, expected) in table {
            let decision = authorize(&node(), &asked(verb, group, resource, at), &store);
            assert_eq!(decision == Decision::Allow, expected, "{verb} {resource} {at}");
        }
        for (group, resource) in [("", "pods"), ("resource.k8s.io", "resourceslices")] {
            let own = Attributes { own_only: true, ..asked("watch", group, resource, "/") };
            assert_eq!(authorize(&node(), &own, &store), Decision::Allow, "{resource}");
        }
        let mine =
            Attributes { own: true, ..asked("get", "resource.k8s.io", "resourceslices", "/s") };
        assert_eq!(authorize(&node(), &mine, &store), Decision::Allow);
    }

    #[test]
    fn a_refused_node_is_told_why() {
        let refused = authorize(&node(), &asked("get", "", "nodes", "/b"), &Store::default());
        let why = "node 'a' cannot read 'b', only its own Node object";
        assert_eq!(refused, Decision::Deny(why.into()));
    }

    #[test]
    fn rbac_grants_by_role_and_binding_and_not_beyond() {
        let store = Store::default();
        store.seed();
        let request = asked("get", "apps", "daemonsets", "kube-system/aws-node");
        let role = json!({"metadata": {"name": "r"}, "rules": [
            {"apiGroups": ["apps"], "resources": ["daemonsets"], "verbs": ["get"]}]});
        store.create(&CLUSTERROLES, "", role).unwrap();
        assert!(authorize(&node(), &request, &store) != Decision::Allow);
        let binding = json!({"metadata": {"name": "b"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
            "subjects": [{"kind": "Group", "name": "system:nodes"}]});
        store.create(&ROLEBINDINGS, "kube-system", binding).unwrap();
        assert_eq!(authorize(&node(), &request, &store), Decision::Allow);
        for other in [
            asked("list", "apps", "daemonsets", "kube-system/"),
            asked("get", "apps", "daemonsets", "default/aws-node"),
            asked("get", "apps", "deployments", "kube-system/coredns"),
            asked("get", "apps", "daemonsets/status", "kube-system/aws-node"),
        ] {
            assert!(authorize(&node(), &other, &store) != Decision::Allow, "{other:?}");
        }
    }

    #[test]
    fn rules_know_wildcards_names_and_paths() {
        let any = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
        assert!(rule_allows(&any, &asked("delete", "apps", "daemonsets", "x/y")));
        let named = json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"],
            "resourceNames": ["a"]});
        assert!(rule_allows(&named, &asked("get", "", "nodes", "/a")));
        assert!(!rule_allows(&named, &asked("get", "", "nodes", "/b")));
        let urls = json!({"nonResourceURLs": ["/metrics", "/debug/*"], "verbs": ["get"]});
        let path = |path| Attributes { path: Some(path), ..asked("get", "", "", "/") };
        assert!(rule_allows(&urls, &path("/metrics")) && rule_allows(&urls, &path("/debug/x")));
        assert!(!rule_allows(&urls, &path("/metrics/x")));
        assert!(!rule_allows(&any, &path("/metrics")));
    }

    #[test]
    fn the_cluster_admin_policy_allows_all_and_others_do_not() {
        let mut user = node();
        user.groups = vec!["system:authenticated".into()];
        user.name = "arn:aws:iam::1:user/operator".into();
        let request = asked("delete", "", "nodes", "/a");
        assert!(authorize(&user, &request, &Store::default()) != Decision::Allow);
        user.policies = vec!["AmazonEKSClusterAdminPolicy".into()];
        assert_eq!(authorize(&user, &request, &Store::default()), Decision::Allow);
    }
}
