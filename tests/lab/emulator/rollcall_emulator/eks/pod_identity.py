"""Pod identity associations: which service account gets which role."""

import secrets
from typing import Any

from ..clock import utcnow
from ..world import arn
from . import errors
from .store import Store, page


def create(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """CreatePodIdentityAssociation."""
    cluster = store.active_cluster(params["clusterName"])
    errors.required(params, "namespace", "serviceAccount", "roleArn")
    for known in cluster.pod_identities.values():
        if (known["namespace"], known["serviceAccount"]) == (
            params["namespace"],
            params["serviceAccount"],
        ):
            if store.replayed("CreatePodIdentityAssociation", params):
                return {"association": known}
            raise errors.in_use(
                f"Association already exists: {known['associationId']}", clusterName=cluster.name
            )
    identity = f"a-{secrets.token_hex(9)[:17]}"
    association = {
        "clusterName": cluster.name,
        "namespace": params["namespace"],
        "serviceAccount": params["serviceAccount"],
        "roleArn": params["roleArn"],
        "associationId": identity,
        "associationArn": arn("eks", f"podidentityassociation/{cluster.name}/{identity}"),
        "tags": dict(params.get("tags") or {}),
        "createdAt": utcnow(),
        "modifiedAt": utcnow(),
    }
    cluster.pod_identities[identity] = association
    store.keep_token("CreatePodIdentityAssociation", params)
    return {"association": association}


def _find(store: Store, params: dict[str, Any]) -> dict[str, Any]:
    association = store.cluster(params["clusterName"]).pod_identities.get(params["associationId"])
    if association is None:
        raise errors.not_found(f"No association found: {params['associationId']}")
    return association


def describe(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """DescribePodIdentityAssociation."""
    return {"association": _find(store, params)}


def list_all(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """ListPodIdentityAssociations."""
    found = list(store.cluster(params["clusterName"]).pod_identities.values())
    for key in ("namespace", "serviceAccount"):
        if params.get(key):
            found = [association for association in found if association[key] == params[key]]
    return page(found, params, "associations")


def delete(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """DeletePodIdentityAssociation."""
    association = _find(store, params)
    del store.cluster(params["clusterName"]).pod_identities[params["associationId"]]
    return {"association": association}
