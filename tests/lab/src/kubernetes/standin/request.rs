//! Takes a request's method, path and query apart, as the API server's RequestInfo resolver does.
//!
//! Pure: what the request means is decided here, before anybody asks who sent it.

use super::registry::{self, ResourceType};

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A stored resource.
    Resource(ResourceRequest),
    /// A review that is computed: group and plural name.
    Review {
        /// The API group.
        group: &'static str,
        /// The plural name.
        resource: &'static str,
        /// The kind of the answer.
        kind: &'static str,
    },
    /// Anything else: discovery, health, version, or nothing at all.
    Path,
}

/// A request for a stored resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResourceRequest {
    pub(super) verb: &'static str,
    pub(super) kind: &'static ResourceType,
    /// Empty: all namespaces, or a type without them.
    pub(super) namespace: String,
    /// Empty: the collection.
    pub(super) name: String,
    /// Empty: the object itself.
    pub(super) subresource: String,
}

impl ResourceRequest {
    /// The namespace that authorisation looks in: a Namespace is in itself.
    pub(super) fn authorized_namespace(&self) -> &str {
        if self.kind == &registry::NAMESPACES { &self.name } else { &self.namespace }
    }

    /// `nodes/status`: how authorisation names what is asked for.
    pub(super) fn resource_path(&self) -> String {
        if self.subresource.is_empty() {
            self.kind.resource.to_owned()
        } else {
            format!("{}/{}", self.kind.resource, self.subresource)
        }
    }
}

/// The decoded query of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(raw: &str) -> Self {
        Self(url::form_urlencoded::parse(raw.as_bytes()).into_owned().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A boolean parameter: `true` and `1` are set, as the API server reads them.
    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1"))
    }
}

/// Reads what a request is for.
pub(super) fn resolve(method: &str, path: &str, query: &Query) -> Target {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return Target::Path,
    };
    if let [resource] = rest
        && let Some((group, resource, kind)) = review(group, version, resource)
    {
        return Target::Review { group, resource, kind };
    }
    let (namespace, rest) = match rest {
        // Two parts below a namespace may be a subresource of the namespace itself.
        ["namespaces", _, "status" | "finalize"] => ("", rest),
        ["namespaces", namespace, inner @ ..] if !inner.is_empty() => (*namespace, inner),
        _ => ("", rest),
    };
    let (resource, name, subresource) = match rest {
        [resource] => (*resource, "", ""),
        [resource, name] => (*resource, *name, ""),
        [resource, name, subresource] => (*resource, *name, *subresource),
        _ => return Target::Path,
    };
    let Some(kind) = registry::find(group, version, resource) else { return Target::Path };
    let Some(verb) = verb(method, !name.is_empty(), query) else { return Target::Path };
    let name = match (verb, name) {
        // A collection narrowed to one name is authorised as that name.
        ("list" | "watch", "") => selected_name(query).unwrap_or_default(),
        _ => name.to_owned(),
    };
    Target::Resource(ResourceRequest {
        verb,
        kind,
        namespace: namespace.to_owned(),
        name,
        subresource: subresource.to_owned(),
    })
}

fn review(
    group: &str,
    version: &str,
    resource: &str,
) -> Option<(&'static str, &'static str, &'static str)> {
    registry::REVIEWS
        .iter()
        .copied()
        .find(|(g, plural, _)| *g == group && *plural == resource && version == "v1")
}

fn verb(method: &str, named: bool, query: &Query) -> Option<&'static str> {
    Some(match (method, named) {
        ("GET" | "HEAD", true) if !query.flag("watch") => "get",
        ("GET" | "HEAD", _) if query.flag("watch") => "watch",
        ("GET" | "HEAD", _) => "list",
        ("POST", _) => "create",
        ("PUT", true) => "update",
        ("PATCH", true) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => return None,
    })
}

/// The name in a field selector `metadata.name=NAME`.
fn selected_name(query: &Query) -> Option<String> {
    query.get("fieldSelector")?.split(',').find_map(|term| {
        let (field, value) = term.split_once('=')?;
        let value = value.strip_prefix('=').unwrap_or(value);
        (field.trim() == "metadata.name").then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(method: &str, path: &str, query: &str) -> ResourceRequest {
        match resolve(method, path, &Query::parse(query)) {
            Target::Resource(request) => request,
            other => panic!("{method} {path} is {other:?}"),
        }
    }

    #[test]
    fn paths_name_verb_namespace_name_and_subresource() {
        let table = [
            ("GET", "/api/v1/nodes", "", "list nodes / "),
            ("GET", "/api/v1/nodes", "watch=true", "watch nodes / "),
            ("GET", "/api/v1/nodes/a", "", "get nodes / a"),
            ("PATCH", "/api/v1/nodes/a/status", "", "patch nodes/status / a"),
            ("POST", "/api/v1/namespaces/kube-system/pods", "", "create pods kube-system/ "),
            ("GET", "/api/v1/namespaces/kube-system", "", "get namespaces / kube-system"),
            ("PUT", "/api/v1/namespaces/x/status", "", "update namespaces/status / x"),
            ("GET", "/apis/apps/v1/namespaces/n/daemonsets/d", "", "get daemonsets n/ d"),
            ("GET", "/apis/apps/v1/daemonsets", "", "list daemonsets / "),
            ("DELETE", "/api/v1/namespaces/n/pods", "", "deletecollection pods n/ "),
            ("GET", "/api/v1/nodes", "fieldSelector=metadata.name%3Da", "list nodes / a"),
        ];
        for (method, path, query, expected) in table {
            let got = resource(method, path, query);
            let text =
                format!("{} {} {}/ {}", got.verb, got.resource_path(), got.namespace, got.name);
            assert_eq!(text, expected, "{method} {path}?{query}");
        }
    }

    #[test]
    fn what_is_not_served_is_a_plain_path() {
        for path in ["/", "/readyz", "/api", "/api/v1", "/apis/apps/v1", "/api/v1/widgets"] {
            assert_eq!(resolve("GET", path, &Query::default()), Target::Path, "{path}");
        }
        assert_eq!(resolve("PUT", "/api/v1/nodes", &Query::default()), Target::Path);
    }

    #[test]
    fn reviews_are_told_from_stored_resources() {
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        assert!(matches!(resolve("POST", path, &Query::default()), Target::Review { .. }));
    }
}
