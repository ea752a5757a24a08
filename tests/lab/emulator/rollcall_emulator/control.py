"""The control API, `/_control/*`: how the lab looks at the emulated account and steers it.

What it shows is read under the lock: an instance that is being launched has no role and no place in
its group yet, and must not be seen so.
"""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from . import views
from .account import account
from .eks import nodegroup_lifecycle
from .faults import InvalidRule
from .identity import Directory, Refused
from .world import World

Answer = tuple[int, Any]


class ControlApi:
    """Routes of the control API."""

    def __init__(self, world: World, directory: Directory) -> None:
        self.world = world
        self.directory = directory
        self._routes = {
            ("GET", "instances"): lambda _q, _b: self._view(views.instances),
            ("GET", "eks"): lambda _q, _b: self._view(views.eks),
            ("GET", "images"): lambda _q, _b: self._view(lambda world: world.builds.view()),
            ("POST", "disks"): self._post_disks,
            ("GET", "health"): lambda _q, _b: (200, {"ready": True}),
            ("POST", "nodes"): self._post_nodes,
            ("POST", "workloads"): self._post_workloads,
            ("POST", "whoami"): self._post_whoami,
            ("GET", "rules"): lambda _q, _b: (200, world.rules.all()),
            ("POST", "rules"): self._post_rules,
            ("DELETE", "rules"): self._delete_rules,
            ("GET", "calls"): self._get_calls,
            ("GET", "account"): lambda _q, _b: self._view(account),
            ("GET", "held"): self._get_held,
            ("POST", "held"): self._post_held,
            ("DELETE", "held"): self._delete_held,
            ("POST", "kubernetes"): self._post_kubernetes,
            ("POST", "limits"): self._post_limits,
            ("POST", "reservations"): self._post_reservations,
            ("POST", "quotas"): self._post_quotas,
        }

    def handle(self, environ: dict[str, Any], path: str, body: bytes) -> Answer:
        """Answers one request."""
        method = environ["REQUEST_METHOD"]
        route = self._routes.get((method, path.removeprefix("/_control/").strip("/")))
        if route is None:
            return 404, {"error": f"no such control endpoint: {method} {path}"}
        query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        try:
            return route(query, json.loads(body) if body else {})
        except (ValueError, KeyError, TypeError, InvalidRule) as error:
            return 400, {"error": f"{type(error).__name__}: {error}"}

    def _view(self, view: Callable[[World], Any]) -> Answer:
        with self.world.lock:
            return 200, view(self.world)

    def _post_nodes(self, _query: dict[str, str], body: dict[str, Any]) -> Answer:
        for instance_id, ready in body["registered"].items():
            if ready is None:
                self.world.registered.pop(instance_id, None)
            else:
                self.world.registered[instance_id] = bool(ready)
        # Node groups turn ACTIVE at once, without waiting for somebody to ask.
        self.world.clock.after_real(0, self._reconsider)
        return 200, {}

    def _reconsider(self) -> None:
        for cluster in self.world.eks.clusters.values():
            for group in cluster.nodegroups.values():
                nodegroup_lifecycle.reconsider(self.world.eks, cluster, group)

    def _post_workloads(self, _query: dict[str, str], body: dict[str, Any]) -> Answer:
        available = {name: int(workload["available"]) for name, workload in body.items()}
        self.world.workloads.update(available)
        return 200, {}

    def _post_disks(self, _query: dict[str, str], body: dict[str, Any]) -> Answer:
        with self.world.lock:
            self.world.builds.told({image_id: bool(kept) for image_id, kept in body.items()})
        return 200, {}

    def _post_whoami(self, _query: dict[str, str], body: dict[str, Any]) -> Answer:
        try:
            return 200, self.directory.whoami(body["url"], body.get("headers", {}))
        except Refused as refusal:
            return 403, {"error": str(refusal)}

    def _post_rules(self, _query: dict[str, str], body: Any) -> Answer:
        return 200, {"ids": [rule["id"] for rule in self.world.rules.add(body)]}

    def _delete_rules(self, query: dict[str, str], _body: Any) -> Answer:
        self.world.rules.clear(int(query["id"]) if "id" in query else None)
        return 200, {}

    def _post_limits(self, _query: dict[str, str], body: dict[str, Any]) -> Answer:
        self.world.limits.change(body)
        return 200, {}

    def _post_reservations(self, _query: dict[str, str], body: dict[str, Any]) -> Answer:
        for reservation_id, fields in body.items():
            self.world.reservations.change(reservation_id, fields)
        return 200, {}

    def _post_quotas(self, _query: dict[str, str], body: dict[str, Any]) -> Answer:
        self.world.quotas.change(body)
        return 200, {}

    def _get_held(self, query: dict[str, str], _body: Any) -> Answer:
        return 200, self.world.held.calls(float(query.get("wait", 0)))

    def _delete_held(self, _query: dict[str, str], _body: Any) -> Answer:
        self.world.held.let_go()
        return 200, {}

    def _post_held(self, _query: dict[str, str], body: dict[str, Any]) -> Answer:
        self.world.held.wait(int(body["n"]))
        return 200, {}

    def _post_kubernetes(self, _query: dict[str, str], body: dict[str, Any]) -> Answer:
        """A change that the API server is asked for: it stands among the calls, and the same rules
        strike it."""
        service, op, resource = "kubernetes", str(body["op"]), str(body["resource"])
        caller = str(body["caller"])
        entry = self.world.journal.open(service, op, {}, caller, resource)
        rule = self.world.rules.strike(service, op, {}, caller, resource)
        action = rule["action"] if rule else None
        self.world.journal.close(entry, 0, None, action)
        return 200, {"n": entry["n"], "action": action}

    def _get_calls(self, query: dict[str, str], _body: Any) -> Answer:
        return 200, self.world.journal.calls(int(query.get("since", 0)), query.get("op"))
