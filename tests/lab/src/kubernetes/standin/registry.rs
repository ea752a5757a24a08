//! The resource types that the stand-in serves, as one table.
//!
//! A type that is not here answers 404, as an API server without it does.

/// One resource type.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ResourceType {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    /// The plural name in paths.
    pub(super) resource: &'static str,
    pub(super) singular: &'static str,
    pub(super) kind: &'static str,
    pub(super) short: &'static [&'static str],
    pub(super) namespaced: bool,
    /// Whether it has a status subresource, so that the main one cannot write status.
    pub(super) status: bool,
    /// Whether `metadata.generation` counts the changes of its spec.
    pub(super) generation: bool,
}

impl ResourceType {
    /// `daemonsets.apps`, or `nodes` in the core group: how messages name the type.
    pub(super) fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }

    /// `apps/v1`, or `v1` in the core group.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// A table row: what most types share is filled in.
const fn core(
    resource: &'static str,
    singular: &'static str,
    kind: &'static str,
    short: &'static [&'static str],
) -> ResourceType {
    ResourceType {
        group: "",
        version: "v1",
        resource,
        singular,
        kind,
        short,
        namespaced: true,
        status: false,
        generation: false,
    }
}

const fn in_group(group: &'static str, base: ResourceType) -> ResourceType {
    ResourceType { group, ..base }
}

const fn cluster_wide(base: ResourceType) -> ResourceType {
    ResourceType { namespaced: false, ..base }
}

const fn with_status(base: ResourceType) -> ResourceType {
    ResourceType { status: true, ..base }
}

const fn with_generation(base: ResourceType) -> ResourceType {
    ResourceType { generation: true, ..base }
}

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) static NODES: ResourceType =
    cluster_wide(with_status(core("nodes", "node", "Node", &["no"])));
pub(super) static PODS: ResourceType = with_status(core("pods", "pod", "Pod", &["po"]));
pub(super) static NAMESPACES: ResourceType =
    cluster_wide(with_status(core("namespaces", "namespace", "Namespace", &["ns"])));
pub(super) static EVENTS: ResourceType = core("events", "event", "Event", &["ev"]);
pub(super) static SERVICEACCOUNTS: ResourceType =
    core("serviceaccounts", "serviceaccount", "ServiceAccount", &["sa"]);
pub(super) static CONFIGMAPS: ResourceType = core("configmaps", "configmap", "ConfigMap", &["cm"]);
pub(super) static SERVICES: ResourceType =
    with_status(core("services", "service", "Service", &["svc"]));
pub(super) static DAEMONSETS: ResourceType = with_generation(with_status(in_group(
    "apps",
    core("daemonsets", "daemonset", "DaemonSet", &["ds"]),
)));
pub(super) static DEPLOYMENTS: ResourceType = with_generation(with_status(in_group(
    "apps",
    core("deployments", "deployment", "Deployment", &["deploy"]),
)));
pub(super) static CLUSTERROLES: ResourceType =
    cluster_wide(in_group(RBAC, core("clusterroles", "clusterrole", "ClusterRole", &[])));
pub(super) static CLUSTERROLEBINDINGS: ResourceType = cluster_wide(in_group(
    RBAC,
    core("clusterrolebindings", "clusterrolebinding", "ClusterRoleBinding", &[]),
));
pub(super) static ROLES: ResourceType = in_group(RBAC, core("roles", "role", "Role", &[]));
pub(super) static ROLEBINDINGS: ResourceType =
    in_group(RBAC, core("rolebindings", "rolebinding", "RoleBinding", &[]));
pub(super) static LEASES: ResourceType =
    in_group("coordination.k8s.io", core("leases", "lease", "Lease", &[]));
pub(super) static RESOURCESLICES: ResourceType = cluster_wide(in_group(
    "resource.k8s.io",
    core("resourceslices", "resourceslice", "ResourceSlice", &[]),
));
pub(super) static DEVICECLASSES: ResourceType = cluster_wide(in_group(
    "resource.k8s.io",
    core("deviceclasses", "deviceclass", "DeviceClass", &[]),
));
pub(super) static RUNTIMECLASSES: ResourceType = cluster_wide(in_group(
    "node.k8s.io",
    core("runtimeclasses", "runtimeclass", "RuntimeClass", &[]),
));

/// Every type that is stored.
pub(super) static ALL: &[&ResourceType] = &[
    &CONFIGMAPS,
    &EVENTS,
    &NAMESPACES,
    &NODES,
    &PODS,
    &SERVICEACCOUNTS,
    &SERVICES,
    &DAEMONSETS,
    &DEPLOYMENTS,
    &CLUSTERROLEBINDINGS,
    &CLUSTERROLES,
    &ROLEBINDINGS,
    &ROLES,
    &LEASES,
    &DEVICECLASSES,
    &RESOURCESLICES,
    &RUNTIMECLASSES,
];

/// Types that are answered, never stored: (group, plural, kind).
pub(super) static REVIEWS: &[(&str, &str, &str)] = &[
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
];

/// The type served at this place.
pub(super) fn find(group: &str, version: &str, resource: &str) -> Option<&'static ResourceType> {
    ALL.iter()
        .copied()
        .find(|kind| kind.group == group && kind.version == version && kind.resource == resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_found_only_in_its_own_group_and_version() {
        assert_eq!(find("apps", "v1", "daemonsets"), Some(&DAEMONSETS));
        assert_eq!(find("", "v1", "daemonsets"), None);
        assert_eq!(find("apps", "v1beta1", "daemonsets"), None);
    }

    #[test]
    fn names_are_qualified_by_group_as_kubectl_shows_them() {
        assert_eq!(DAEMONSETS.qualified(), "daemonsets.apps");
        assert_eq!(NODES.qualified(), "nodes");
        assert_eq!(LEASES.api_version(), "coordination.k8s.io/v1");
        assert_eq!(PODS.api_version(), "v1");
    }
}
