//! Discovery and version documents, made from the table of resource types. Pure.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::registry::{self, ResourceType};

/// The version that is served when the emulator names none.
const DEFAULT_VERSION: &str = "1.34";
const VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The document at a path; `None` where nothing is served.
pub(super) fn document(path: &str, version: Option<&str>) -> Option<Value> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        ["version"] => Some(version_info(version.unwrap_or(DEFAULT_VERSION))),
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": []})),
        ["apis"] => {
            let groups: Vec<Value> = groups().into_iter().map(group_document).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", group] => {
            let group = groups().into_iter().find(|known| known == group)?;
            let mut document = group_document(group);
            document["kind"] = "APIGroup".into();
            document["apiVersion"] = "v1".into();
            Some(document)
        }
        ["api", "v1"] => resource_list("", "v1"),
        ["apis", group, "v1"] => resource_list(group, &format!("{group}/v1")),
        [] => Some(json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/readyz",
            "/version"]})),
        _ => None,
    }
}

fn version_info(version: &str) -> Value {
    let (major, minor) = version.split_once('.').unwrap_or(("1", "34"));
    let minor = minor.split('.').next().unwrap_or(minor);
    json!({
        "major": major,
        "minor": minor,
        "gitVersion": format!("v{major}.{minor}.2-eks-standin"),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "2026-11-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": "linux/amd64",
    })
}

fn groups() -> BTreeSet<&'static str> {
    let stored = registry::ALL.iter().map(|kind| kind.group);
    let reviews = registry::REVIEWS.iter().map(|(group, _, _)| *group);
    stored.chain(reviews).filter(|group| !group.is_empty()).collect()
}

fn group_document(group: &str) -> Value {
    let version = json!({"groupVersion": format!("{group}/v1"), "version": "v1"});
    json!({"name": group, "versions": [version.clone()], "preferredVersion": version})
}

fn resource_list(group: &str, group_version: &str) -> Option<Value> {
    let mut resources: Vec<Value> = registry::ALL
        .iter()
        .filter(|kind| kind.group == group)
        .flat_map(|kind| resource_entries(kind))
        .collect();
    for (review_group, plural, kind) in registry::REVIEWS {
        if *review_group == group {
            resources.push(json!({"name": plural, "singularName": kind.to_lowercase(),
                "namespaced": false, "kind": kind, "verbs": ["create"]}));
        }
    }
    (!resources.is_empty()).then(|| {
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
            "resources": resources})
    })
}

fn resource_entries(kind: &ResourceType) -> Vec<Value> {
    let mut entries = vec![json!({"name": kind.resource, "singularName": kind.singular,
        "namespaced": kind.namespaced, "kind": kind.kind, "verbs": VERBS, "shortNames": kind.short})];
    if kind.status {
        entries.push(json!({"name": format!("{}/status", kind.resource), "singularName": "",
            "namespaced": kind.namespaced, "kind": kind.kind, "verbs": ["get", "patch", "update"]}));
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_where_discovery_says() {
        for kind in registry::ALL {
            let path = if kind.group.is_empty() {
                "/api/v1".to_owned()
            } else {
                format!("/apis/{}/v1", kind.group)
            };
            let list = document(&path, None).unwrap();
            assert_eq!(list["groupVersion"], kind.api_version());
            let names: Vec<_> =
                list["resources"].as_array().unwrap().iter().map(|r| &r["name"]).collect();
            assert!(names.contains(&&Value::from(kind.resource)), "{names:?}");
        }
        assert_eq!(document("/apis/apps", None).unwrap()["preferredVersion"]["version"], "v1");
        assert_eq!(document("/apis/nobody.example/v1", None), None);
    }

    #[test]
    fn the_version_is_the_clusters() {
        let version = document("/version", Some("1.33")).unwrap();
        assert_eq!((&version["major"], &version["minor"]), (&"1".into(), &"33".into()));
        assert_eq!(version["gitVersion"], "v1.33.2-eks-standin");
        assert_eq!(document("/version", None).unwrap()["minor"], "34");
    }
}
