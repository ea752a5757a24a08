"""Updates: DescribeUpdate and ListUpdates."""

from typing import Any

from . import errors
from .store import Store, page


def describe(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """DescribeUpdate."""
    update = store.cluster(params["name"]).updates.get(params["updateId"])
    if update is None:
        raise errors.not_found(f"No update found for ID: {params['updateId']}")
    return {"update": update.described()}


def list_all(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """ListUpdates."""
    cluster = store.cluster(params["name"])
    wanted = (params.get("nodegroupName"), params.get("addonName"))
    found = [u.id for u in cluster.updates.values() if (u.nodegroup, u.addon) == wanted]
    return page(found, params, "updateIds")
