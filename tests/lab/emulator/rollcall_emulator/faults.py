"""Fault rules: what a test wants to go wrong, matched against each call.

A rule is a JSON object: `service`, `op` (either may be `*`), `action`, and optionally `times`
(then it is spent), `prob`, `delay_ms`, `status`, `code`, `message`, `match` (parameter -> value,
compared as prefix of the journal's parameter), `resource` (what the call is about, as in the journal),
`skip` (so many calls that match go through first), `caller` (part of the caller's ARN) and, for S3,
`key_prefix`, and `reads` (true: only calls that change nothing; false: only those that do).
Actions: `throttle`, `error`, `reset` (connection cut before the call), `reset_after` (the call
took effect, its answer is lost), `hold` (the call took effect, its answer is kept back until
`DELETE held`: time to kill who waits for it), `stale` (a read is answered as the same read was
before, a `NotFound` included), `delay`, `corrupt` (one bit of the answer's body is flipped).
"""

import random
import threading
from typing import Any

ACTIONS = ("throttle", "error", "reset", "reset_after", "hold", "stale", "delay", "corrupt")
FIELDS = {
    "service", "op", "action", "times", "prob", "delay_ms", "status", "code", "message", "match",
    "key_prefix", "caller", "resource", "skip", "reads",
}  # fmt: skip


class InvalidRule(ValueError):
    """A rule that says something we do not know; silently ignoring it would prove too little."""


class Rules:
    """The rules in force, in the order they were posted."""

    def __init__(self) -> None:
        self._rules: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._random = random.Random(20260101)
        self._next_id = 1

    def add(self, rules: Any) -> list[dict[str, Any]]:
        """Adds one rule or a list of them; all or none."""
        new = rules if isinstance(rules, list) else [rules]
        for rule in new:
            _check(rule)
        with self._lock:
            added = []
            for rule in new:
                added.append({"id": self._next_id, "hits": 0, **rule})
                self._next_id += 1
            self._rules.extend(added)
            return [dict(rule) for rule in added]

    def all(self) -> list[dict[str, Any]]:
        """The rules that are not spent."""
        with self._lock:
            return [dict(rule) for rule in self._rules]

    def clear(self, rule_id: int | None = None) -> None:
        """Removes one rule, or all."""
        with self._lock:
            self._rules = [r for r in self._rules if rule_id is not None and r["id"] != rule_id]

    def strike(
        self, service: str, op: str, params: dict[str, Any], caller: str = "", resource: str = ""
    ) -> dict[str, Any] | None:
        """The first rule that strikes this call; its `times` is counted down."""
        with self._lock:
            for rule in self._rules:
                if not _matches(rule, service, op, params) or rule.get("caller", "") not in caller:
                    continue
                if rule.get("resource", resource) != resource:
                    continue
                if rule.get("reads", is_read(op)) != is_read(op):
                    continue
                rule["seen"] = rule.get("seen", 0) + 1
                if rule["seen"] <= rule.get("skip", 0):
                    continue
                if self._random.random() >= rule.get("prob", 1.0):
                    continue
                rule["hits"] += 1
                struck = dict(rule)
                if "times" in rule and rule["hits"] >= rule["times"]:
                    self._rules.remove(rule)
                return struck
        return None


class Held:
    """Calls that took effect and whose answers are kept back."""

    LIMIT_SECONDS = 60.0

    def __init__(self) -> None:
        self._calls: list[int] = []
        self._changed = threading.Condition()

    def wait(self, call: int) -> None:
        """Keeps a call's answer back until it is let go, a minute at most."""
        with self._changed:
            self._calls.append(call)
            self._changed.notify_all()
            self._changed.wait_for(lambda: call not in self._calls, self.LIMIT_SECONDS)
            if call in self._calls:
                self._calls.remove(call)

    def calls(self, seconds: float = 0.0) -> list[int]:
        """The numbers of the calls that are held; waits a while for the first one."""
        with self._changed:
            self._changed.wait_for(lambda: self._calls, seconds)
            return list(self._calls)

    def let_go(self) -> None:
        """Lets all of them go."""
        with self._changed:
            self._calls.clear()
            self._changed.notify_all()


def is_read(op: str) -> bool:
    """Whether an operation changes nothing, by the names that AWS gives them."""
    return op.startswith(("Describe", "Get", "List", "Head", "Lookup", "Simulate"))


def _check(rule: Any) -> None:
    if not isinstance(rule, dict):
        raise InvalidRule("a rule is a JSON object")
    unknown = set(rule) - FIELDS
    if unknown:
        raise InvalidRule(f"unknown field `{sorted(unknown)[0]}`")
    if rule.get("action") not in ACTIONS:
        raise InvalidRule(f"`action` must be one of {', '.join(ACTIONS)}")
    if not isinstance(rule.get("times", 1), int) or rule.get("times", 1) < 1:
        raise InvalidRule("`times` must be a positive number")


def _matches(rule: dict[str, Any], service: str, op: str, params: dict[str, Any]) -> bool:
    if rule.get("service", "*") not in ("*", service) or rule.get("op", "*") not in ("*", op):
        return False
    if not str(params.get("Key", "")).lstrip("/").startswith(rule.get("key_prefix", "")):
        return False
    wanted = rule.get("match", {})
    return all(str(params.get(name, "")).startswith(str(value)) for name, value in wanted.items())


def corrupted(body: bytes) -> bytes:
    """The body with one bit in its middle flipped."""
    if not body:
        return body
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
