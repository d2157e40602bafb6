"""Tell others about something that changes often, but seldom enough to cost nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

INTERVAL = 0.25
"""Least seconds between two messages."""


def _later(seconds: float, act: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()


class Throttle:
    """Calls `send` soon after each `notify`, but never twice within `interval` seconds; the last one is never lost.

    Only `flush` waits for nothing.

    Args:
        send: Takes what has gathered and sends it. Called from the notifying thread, or from a timer's, but never from
            both at once: what is taken first is sent first.
        interval: Least seconds between two calls.
        clock: Seconds, never going back.
        later: Runs a function after some seconds.
    """

    def __init__(self, send: Callable[[], None], interval: float = INTERVAL, *,
                 clock: Callable[[], float] = time.monotonic,
                 later: Callable[[float, Callable[[], None]], None] = _later) -> None:
        self._send, self._interval, self._clock, self._later = send, interval, clock, later
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._sent = -interval
        self._waiting = False

    def notify(self) -> None:
        """Something changed."""
        with self._lock:
            if self._waiting:
                return
            wait = self._sent + self._interval - self._clock()
            if wait > 0:
                self._waiting = True
                self._later(wait, self._fire)
                return
        self.flush()

    def flush(self) -> None:
        """Tell now, with all that waits, however soon after the last time."""
        with self._sending:
            self._tell()

    def _fire(self) -> None:
        with self._sending:
            if self._waiting:  # or else `flush` told it
                self._tell()

    def _tell(self) -> None:
        with self._lock:
            self._waiting = False
            self._sent = self._clock()
        self._send()
