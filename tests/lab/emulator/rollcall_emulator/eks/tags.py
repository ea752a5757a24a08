"""Tags on EKS resources, found by ARN."""

from typing import Any

from . import errors
from .store import Store


def _tags(store: Store, resource_arn: str) -> dict[str, str]:
    for cluster in store.clusters.values():
        owned = [cluster, *cluster.entries.values(), *cluster.addons.values()]
        for resource in [*owned, *cluster.nodegroups.values()]:
            if resource.arn == resource_arn:
                return resource.tags
    raise errors.not_found(f"{resource_arn} not found")


def tag(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """TagResource."""
    _tags(store, params["resourceArn"]).update(params.get("tags") or {})
    return {}


def untag(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """UntagResource."""
    tags = _tags(store, params["resourceArn"])
    for key in params.get("tagKeys") or []:
        tags.pop(key, None)
    return {}


def list_all(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """ListTagsForResource."""
    return {"tags": _tags(store, params["resourceArn"])}
