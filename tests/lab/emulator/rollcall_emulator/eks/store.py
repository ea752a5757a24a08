"""All EKS state of the account, and the helpers that every operation uses."""

import uuid
from collections.abc import Callable
from typing import Any

from ..identity import Directory, Principal
from ..world import World
from . import errors
from .model import Cluster, Nodegroup, Update


class Store:
    """Clusters by name, tokens, and access to the rest of the account."""

    def __init__(self, world: World, directory: Directory) -> None:
        self.world = world
        self.directory = directory
        self.clusters: dict[str, Cluster] = {}
        self._tokens: dict[tuple[str, str], str] = {}

    def cluster(self, name: str) -> Cluster:
        """The cluster, or EKS's answer that there is none."""
        found = self.clusters.get(name)
        if found is None:
            raise errors.not_found(f"No cluster found for name: {name}.", clusterName=name)
        return found

    def active_cluster(self, name: str) -> Cluster:
        """The cluster if it takes new resources now."""
        found = self.cluster(name)
        if found.status not in ("ACTIVE", "UPDATING"):
            raise errors.invalid_request(
                f"Cluster '{name}' is not in ACTIVE status. Current status: {found.status}",
                clusterName=name,
            )
        return found

    def nodegroup(self, cluster: Cluster, name: str) -> Nodegroup:
        """The node group, or EKS's answer that there is none."""
        found = cluster.nodegroups.get(name)
        if found is None:
            raise errors.not_found(
                f"No node group found for name: {name}.",
                clusterName=cluster.name,
                nodegroupName=name,
            )
        return found

    def replayed(self, op: str, params: dict[str, Any]) -> bool:
        """Whether this request repeats one that succeeded; a reused token is refused."""
        token = params.get("clientRequestToken")
        if not token or (op, token) not in self._tokens:
            return False
        if self._tokens[(op, token)] != _fingerprint(params):
            raise errors.invalid_parameter(
                "The client request token was used with other parameters before"
            )
        return True

    def keep_token(self, op: str, params: dict[str, Any]) -> None:
        """Remembers a request that succeeded."""
        if token := params.get("clientRequestToken"):
            self._tokens[(op, token)] = _fingerprint(params)

    @staticmethod
    def new_id() -> str:
        """An id as EKS gives its updates."""
        return str(uuid.uuid4())

    def start_update(
        self,
        cluster: Cluster,
        kind: str,
        changes: dict[str, Any],
        seconds: float,
        finish: Callable[[], None],
        nodegroup: str | None = None,
        addon: str | None = None,
    ) -> dict[str, Any]:
        """Begins a change that takes a while; `finish` runs when it is through."""
        params = [{"type": key, "value": str(value)} for key, value in changes.items()]
        update = Update(self.new_id(), kind, params, nodegroup, addon)
        cluster.updates[update.id] = update

        def done() -> None:
            finish()
            update.status = "Successful"

        self.world.clock.after(seconds, done)
        return {"update": update.described()}


def _fingerprint(params: dict[str, Any]) -> str:
    return repr(sorted((key, repr(value)) for key, value in params.items() if value is not None))


def page(items: list[Any], params: dict[str, Any], key: str) -> dict[str, Any]:
    """One page of a list, with the token of the next."""
    size = int(params.get("maxResults") or 100)
    start = int(params.get("nextToken") or 0)
    answer: dict[str, Any] = {key: items[start : start + size]}
    if start + size < len(items):
        answer["nextToken"] = str(start + size)
    return answer


def caller_role_arn(caller: Principal | None) -> str | None:
    """The IAM principal behind a caller: a session counts as its role."""
    if caller is None:
        return None
    if caller.role_name:
        account = caller.arn.split(":")[4]
        return f"arn:aws:iam::{account}:role/{caller.role_name}"
    return caller.arn
