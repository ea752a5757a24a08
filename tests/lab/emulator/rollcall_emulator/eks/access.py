"""Access entries: which IAM principal is who in Kubernetes."""

import uuid
from typing import Any

from ..clock import utcnow
from ..world import arn
from . import errors
from .model import AccessEntry, Cluster
from .store import Store, caller_role_arn, page

POLICIES = (
    "AmazonEKSAdminPolicy",
    "AmazonEKSAdminViewPolicy",
    "AmazonEKSAutoNodePolicy",
    "AmazonEKSClusterAdminPolicy",
    "AmazonEKSEditPolicy",
    "AmazonEKSViewPolicy",
)
POLICY_PREFIX = "arn:aws:eks::aws:cluster-access-policy/"
ADMIN_POLICY = f"{POLICY_PREFIX}AmazonEKSClusterAdminPolicy"
# Entries of these types get their name and groups from EKS.
NODE_TYPES = {
    "EC2_LINUX": ("system:node:{{EC2PrivateDNSName}}", ["system:nodes"]),
    "EC2_WINDOWS": (
        "system:node:{{EC2PrivateDNSName}}",
        ["eks:kube-proxy-windows", "system:nodes"],
    ),
    "FARGATE_LINUX": ("system:node:{{SessionName}}", ["system:node-proxier", "system:nodes"]),
    "HYBRID_LINUX": ("system:node:{{SessionName}}", ["system:nodes"]),
    "EC2": ("system:node:{{EC2PrivateDNSName}}", ["system:nodes"]),
}


def bootstrap_creator(store: Store, cluster: Cluster, caller: Any) -> None:
    """Makes the cluster's creator its administrator."""
    principal = caller_role_arn(caller)
    if principal:
        entry = _new_entry(store, cluster, principal, "STANDARD", None, [], {})
        _associate(entry, ADMIN_POLICY, {"type": "cluster", "namespaces": []})


def ensure_node_entry(store: Store, cluster: Cluster, role_arn: str) -> None:
    """What CreateNodegroup does for its role, where the mode allows entries."""
    if cluster.access["authenticationMode"] == "CONFIG_MAP" or role_arn in cluster.entries:
        return
    entry = _new_entry(store, cluster, role_arn, "EC2_LINUX", None, [], {})
    entry.created_by_eks = True


def forget_node_entry(cluster: Cluster, role_arn: str) -> None:
    """Takes back an entry that EKS made, once no node group uses the role."""
    entry = cluster.entries.get(role_arn)
    used = any(group.node_role == role_arn for group in cluster.nodegroups.values())
    if entry is not None and entry.created_by_eks and not used:
        del cluster.entries[role_arn]


def _new_entry(
    store: Store,
    cluster: Cluster,
    principal: str,
    kind: str,
    username: str | None,
    groups: list[str],
    tags: dict[str, str],
) -> AccessEntry:
    kind_of, name = principal.split(":")[-1].split("/", 1)[0], principal.split("/")[-1]
    account = principal.split(":")[4]
    fixed_name, fixed_groups = NODE_TYPES.get(kind, (None, None))
    default = principal
    if kind_of == "role":
        default = f"arn:aws:sts::{account}:assumed-role/{name}/{{{{SessionName}}}}"
    entry = AccessEntry(
        principal_arn=principal,
        arn=arn("eks", f"access-entry/{cluster.name}/{kind_of}/{account}/{name}/{uuid.uuid4()}"),
        type=kind,
        username=fixed_name or username or default,
        groups=fixed_groups or groups,
        tags=tags,
    )
    cluster.entries[principal] = entry
    return entry


def create(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """CreateAccessEntry."""
    cluster = _cluster(store, params)
    errors.required(params, "principalArn")
    principal, kind = params["principalArn"], params.get("type") or "STANDARD"
    if principal in cluster.entries:
        if store.replayed("CreateAccessEntry", params):
            return {"accessEntry": _described(cluster, cluster.entries[principal])}
        raise errors.in_use(
            "The specified access entry resource is already in use on this cluster.",
            clusterName=cluster.name,
        )
    if kind != "STANDARD" and kind not in NODE_TYPES:
        raise errors.invalid_parameter(f"The type {kind} is not a supported access entry type.")
    if kind in NODE_TYPES and (params.get("kubernetesGroups") or params.get("username")):
        raise errors.invalid_parameter(
            f"The username and kubernetesGroups of an access entry of type {kind} cannot be set."
        )
    _check_principal(store, principal)
    _check_groups(params.get("kubernetesGroups") or [])
    entry = _new_entry(
        store,
        cluster,
        principal,
        kind,
        params.get("username"),
        list(params.get("kubernetesGroups") or []),
        dict(params.get("tags") or {}),
    )
    store.keep_token("CreateAccessEntry", params)
    return {"accessEntry": _described(cluster, entry)}


def _check_principal(store: Store, principal: str) -> None:
    iam = store.world.iam
    known = {p.arn for p in [*list(iam.roles.values()), *list(iam.users.values())]}
    if principal not in known:
        raise errors.invalid_parameter(
            "The specified principalArn is invalid: invalid principal."
        )


def _check_groups(groups: list[str]) -> None:
    for group in groups:
        if group.startswith("system:"):
            raise errors.invalid_parameter(
                f"The kubernetes group name {group} is invalid, it cannot start with system:"
            )


def _cluster(store: Store, params: dict[str, Any]) -> Cluster:
    cluster = store.cluster(params["clusterName"])
    if cluster.access["authenticationMode"] == "CONFIG_MAP":
        raise errors.invalid_request(
            "The cluster's authentication mode must be set to one of [API, API_AND_CONFIG_MAP] "
            "to perform this operation.",
            clusterName=cluster.name,
        )
    return cluster


def _entry(store: Store, params: dict[str, Any]) -> tuple[Cluster, AccessEntry]:
    cluster = _cluster(store, params)
    entry = cluster.entries.get(params["principalArn"])
    if entry is None:
        raise errors.not_found(
            "The specified principalArn could not be found. You can view your available access "
            "entries with 'list-access-entries'.",
            clusterName=cluster.name,
        )
    return cluster, entry


def _described(cluster: Cluster, entry: AccessEntry) -> dict[str, Any]:
    return {
        "clusterName": cluster.name,
        "principalArn": entry.principal_arn,
        "kubernetesGroups": entry.groups,
        "accessEntryArn": entry.arn,
        "createdAt": entry.created_at,
        "modifiedAt": entry.modified_at,
        "tags": entry.tags,
        "username": entry.username,
        "type": entry.type,
    }


def describe(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """DescribeAccessEntry."""
    return {"accessEntry": _described(*_entry(store, params))}


def list_all(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """ListAccessEntries."""
    entries = _cluster(store, params).entries
    policy = params.get("associatedPolicyArn")
    return page(
        [p for p, e in entries.items() if not policy or policy in e.policies],
        params,
        "accessEntries",
    )


def update(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """UpdateAccessEntry."""
    cluster, entry = _entry(store, params)
    if entry.type in NODE_TYPES:
        raise errors.invalid_request(
            f"An access entry of type {entry.type} cannot be updated."
        )
    _check_groups(params.get("kubernetesGroups") or [])
    if params.get("kubernetesGroups") is not None:
        entry.groups = list(params["kubernetesGroups"])
    entry.username = params.get("username") or entry.username
    entry.modified_at = utcnow()
    return {"accessEntry": _described(cluster, entry)}


def delete(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """DeleteAccessEntry."""
    cluster, entry = _entry(store, params)
    del cluster.entries[entry.principal_arn]
    return {}


def _associate(entry: AccessEntry, policy: str, scope: dict[str, Any]) -> dict[str, Any]:
    before = entry.policies.get(policy, {})
    entry.policies[policy] = {
        "policyArn": policy,
        "accessScope": {"type": scope["type"], "namespaces": list(scope.get("namespaces") or [])},
        "associatedAt": before.get("associatedAt", utcnow()),
        "modifiedAt": utcnow(),
    }
    return entry.policies[policy]


def associate_policy(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """AssociateAccessPolicy."""
    cluster, entry = _entry(store, params)
    policy, scope = params.get("policyArn") or "", params.get("accessScope") or {}
    if policy.removeprefix(POLICY_PREFIX) not in POLICIES:
        raise errors.invalid_parameter(
            "The specified policyArn is invalid: the policy does not exist."
        )
    if scope.get("type") not in ("cluster", "namespace"):
        raise errors.invalid_parameter("The access scope type must be cluster or namespace.")
    if scope["type"] == "namespace" and not scope.get("namespaces"):
        raise errors.invalid_parameter("A namespace access scope needs namespaces.")
    if entry.type in NODE_TYPES and entry.type != "EC2":
        raise errors.invalid_request(
            f"Access policies cannot be associated with an access entry of type {entry.type}."
        )
    return {
        "clusterName": cluster.name,
        "principalArn": entry.principal_arn,
        "associatedAccessPolicy": _associate(entry, policy, scope),
    }


def disassociate_policy(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """DisassociateAccessPolicy."""
    _, entry = _entry(store, params)
    if entry.policies.pop(params["policyArn"], None) is None:
        raise errors.not_found("The specified policyArn is not associated with the access entry.")
    return {}


def list_associated(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """ListAssociatedAccessPolicies."""
    cluster, entry = _entry(store, params)
    answer = page(list(entry.policies.values()), params, "associatedAccessPolicies")
    return {**answer, "clusterName": cluster.name, "principalArn": entry.principal_arn}


def list_policies(_store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """ListAccessPolicies."""
    policies = [{"name": name, "arn": f"{POLICY_PREFIX}{name}"} for name in POLICIES]
    return page(policies, params, "accessPolicies")
