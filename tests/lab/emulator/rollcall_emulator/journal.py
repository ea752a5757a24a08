"""The journal: every AWS call in the order it arrived, so that tests can prove order and count."""

import itertools
import threading
from datetime import UTC, datetime
from typing import Any

VALUE_LIMIT = 256


def _trimmed(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= VALUE_LIMIT else f"{value[:VALUE_LIMIT]}…({len(value)})"
    if isinstance(value, dict):
        return {key: _trimmed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_trimmed(item) for item in value]
    return value


class Journal:
    """Append-only record of calls; `n` counts from 1."""

    def __init__(self) -> None:
        self._calls: list[dict[str, Any]] = []
        self._count = itertools.count(1)
        self._lock = threading.Lock()

    def open(
        self,
        service: str,
        op: str,
        params: dict[str, Any],
        caller: str,
        resource: str,
        user_agent: str = "",
    ) -> dict[str, Any]:
        """Records a call that has arrived; its status is filled in by `close`."""
        entry = {
            "service": service,
            "op": op,
            "resource": resource,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "caller": caller,
            "userAgent": user_agent,
            "status": None,
            "params": _trimmed(params),
        }
        with self._lock:
            entry = {"n": next(self._count), **entry}
            self._calls.append(entry)
        return entry

    @staticmethod
    def close(entry: dict[str, Any], status: int, code: str | None, fault: str | None) -> None:
        """Completes an entry: HTTP status, AWS error code, and the fault rule that struck."""
        entry["status"] = status
        if code:
            entry["code"] = code
        if fault:
            entry["fault"] = fault

    def calls(self, since: int = 0, op: str | None = None) -> list[dict[str, Any]]:
        """All calls after number `since`, or those of one operation."""
        with self._lock:
            found = self._calls[since:]
        return [dict(entry) for entry in found if op is None or entry["op"] == op]
