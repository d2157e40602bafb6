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


class Coalescer:
    """Calls `send` soon after each `notify`, but never twice within `interval` seconds; the last one is never lost.

    Args:
        send: Takes what has gathered and sends it. Called from the notifying thread, or from a timer's.
        interval: Least seconds between two calls.
        clock: Seconds, never going back.
        later: Runs a function after some seconds.
    """

    def __init__(self, send: Callable[[], None], interval: float = INTERVAL, *,
                 clock: Callable[[], float] = time.monotonic,
                 later: Callable[[float, Callable[[], None]], None] = _later) -> None:
        self._send, self._interval, self._clock, self._later = send, interval, clock, later
        self._lock = threading.Lock()
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
            self._sent = self._clock()
        self._send()

    def _fire(self) -> None:
        with self._lock:
            self._waiting = False
            self._sent = self._clock()
        self._send()
