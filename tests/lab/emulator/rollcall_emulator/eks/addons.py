"""Add-ons. They are ACTIVE while their pods run, which the lab tells us."""

import uuid
from typing import Any

from .. import durations
from ..clock import utcnow
from ..world import arn
from . import errors, versions
from .model import Addon, Cluster
from .store import Store, page

KEPT_FIELDS = ("serviceAccountRoleArn", "configurationValues")


def create(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """CreateAddon."""
    cluster = store.active_cluster(params["clusterName"])
    errors.required(params, "addonName")
    name = params["addonName"]
    if name in cluster.addons:
        if store.replayed("CreateAddon", params):
            return {"addon": described(store, cluster, cluster.addons[name])}
        raise errors.in_use("Addon already exists.", clusterName=cluster.name, addonName=name)
    addon = Addon(
        name=name,
        arn=arn("eks", f"addon/{cluster.name}/{name}/{uuid.uuid4()}"),
        version=_version(cluster, name, params.get("addonVersion")),
        tags=dict(params.get("tags") or {}),
        fields={key: params.get(key) for key in KEPT_FIELDS},
    )
    cluster.addons[name] = addon
    store.keep_token("CreateAddon", params)
    store.world.clock.after(durations.ADDON_CREATE, lambda: _settle(addon, "CREATING"))
    return {"addon": described(store, cluster, addon)}


def _settle(addon: Addon, expected: str) -> None:
    if addon.phase == expected:
        addon.phase = "INSTALLED"
        addon.modified_at = utcnow()


def _version(cluster: Cluster, name: str, asked: str | None) -> str:
    offered = versions.addon_versions(name, cluster.version)
    if not offered:
        raise errors.invalid_parameter(
            f"Addon {name} specified is not supported", clusterName=cluster.name, addonName=name
        )
    if asked and asked not in offered:
        raise errors.invalid_parameter(
            "Addon version specified is not supported", clusterName=cluster.name, addonName=name
        )
    return asked or offered[0]


def status(store: Store, addon: Addon) -> str:
    """The add-on's state now."""
    if addon.phase != "INSTALLED":
        return addon.phase
    # CoreDNS has no place to run before the first node; a DaemonSet without nodes lacks nothing.
    at_first = 0 if addon.name == "coredns" else 1
    return "ACTIVE" if store.world.workloads.get(addon.name, at_first) else "DEGRADED"


def described(store: Store, cluster: Cluster, addon: Addon) -> dict[str, Any]:
    """The wire form."""
    now = status(store, addon)
    issues = []
    if now == "DEGRADED":
        issues.append(
            {
                "code": "InsufficientNumberOfReplicas",
                "message": "The add-on is unhealthy because it doesn't have the desired number "
                "of replicas.",
                "resourceIds": [],
            }
        )
    return {
        "addonName": addon.name,
        "clusterName": cluster.name,
        "status": now,
        "addonVersion": addon.version,
        "health": {"issues": issues},
        "addonArn": addon.arn,
        "createdAt": addon.created_at,
        "modifiedAt": addon.modified_at,
        "tags": addon.tags,
        **{key: value for key, value in addon.fields.items() if value is not None},
    }


def _find(store: Store, params: dict[str, Any]) -> tuple[Cluster, Addon]:
    cluster = store.cluster(params["clusterName"])
    name = params["addonName"]
    addon = cluster.addons.get(name)
    if addon is None:
        raise errors.not_found(
            f"No addon: {name} found in cluster: {cluster.name}",
            clusterName=cluster.name,
            addonName=name,
        )
    return cluster, addon


def describe(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """DescribeAddon."""
    return {"addon": described(store, *_find(store, params))}


def list_all(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """ListAddons."""
    return page(sorted(store.cluster(params["clusterName"]).addons), params, "addons")


def update(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """UpdateAddon."""
    cluster, addon = _find(store, params)
    if addon.phase != "INSTALLED":
        raise errors.in_use(
            f"Addon {addon.name} cannot be updated as it is currently in {addon.phase} state",
            clusterName=cluster.name,
            addonName=addon.name,
        )
    version = _version(cluster, addon.name, params.get("addonVersion") or addon.version)
    changes = {"AddonVersion": version, "ResolveConflicts": params.get("resolveConflicts", "NONE")}
    addon.phase = "UPDATING"

    def finish() -> None:
        addon.version = version
        addon.fields.update({k: params[k] for k in KEPT_FIELDS if params.get(k) is not None})
        _settle(addon, "UPDATING")

    return store.start_update(
        cluster, "AddonUpdate", changes, durations.ADDON_UPDATE, finish, addon=addon.name
    )


def delete(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """DeleteAddon."""
    cluster, addon = _find(store, params)
    if addon.phase != "DELETING":
        addon.phase = "DELETING"
        store.world.clock.after(
            durations.ADDON_DELETE, lambda: cluster.addons.pop(addon.name, None)
        )
    return {"addon": described(store, cluster, addon)}
