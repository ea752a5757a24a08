"""Emulated time: durations of AWS, scaled by `--speed`, and what happens when they end.

One thread runs the callbacks, holding the lock that serialises AWS calls, so that a transition
never interleaves with a request. Wall-clock timestamps in answers are real time.
"""

import heapq
import itertools
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime


def utcnow() -> datetime:
    """The present, with a time zone, as AWS's answers carry it."""
    return datetime.now(UTC)


class Clock:
    """Runs callbacks after scaled durations."""

    def __init__(self, speed: float, lock: threading.RLock) -> None:
        self.speed = speed
        self._lock = lock
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="clock", daemon=True).start()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Runs `action` once `seconds` of emulated time have passed."""
        self.after_real(seconds * self.speed, action)

    def after_real(self, seconds: float, action: Callable[[], None]) -> None:
        """Runs `action` once `seconds` of real time have passed, whatever the speed."""
        with self._changed:
            heapq.heappush(self._queue, (time.monotonic() + seconds, next(self._order), action))
            self._changed.notify()

    def _run(self) -> None:
        while True:
            action = self._next()
            with self._lock:
                try:
                    action()
                except Exception:  # One broken transition must not stop all later ones.
                    traceback.print_exc(file=sys.stderr)

    def _next(self) -> Callable[[], None]:
        with self._changed:
            while True:
                if not self._queue:
                    self._changed.wait()
                    continue
                wait = self._queue[0][0] - time.monotonic()
                if wait <= 0:
                    return heapq.heappop(self._queue)[2]
                self._changed.wait(wait)
