"""Limit how often a frequent change is reported, without losing the last report."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

INTERVAL = 0.25
"""Minimum seconds between two messages."""


def _start_timer(seconds: float, action: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()


class Throttle:
    """Calls `send` soon after each `notify`, at most once in `interval` seconds; the last change is always sent.

    `flush` sends at once.

    Args:
        send: Collects the pending changes and sends them. Called from the notifying thread or from a timer's thread,
            but never from both at once, so that messages stay in order.
        interval: Minimum seconds between two calls.
        clock: A monotonic clock, in seconds.
        schedule: Runs a function after some seconds.
    """

    def __init__(self, send: Callable[[], None], interval: float = INTERVAL, *,
                 clock: Callable[[], float] = time.monotonic,
                 schedule: Callable[[float, Callable[[], None]], None] = _start_timer) -> None:
        self._send, self._interval, self._clock, self._schedule = send, interval, clock, schedule
        self._lock, self._send_lock = threading.Lock(), threading.Lock()
        self._last_time = -interval
        self._scheduled = False

    def notify(self) -> None:
        """Report a change."""
        with self._lock:
            if self._scheduled:
                return
            wait = self._last_time + self._interval - self._clock()
            if wait > 0:
                self._scheduled = True
                self._schedule(wait, self._on_timer)
                return
        self.flush()

    def flush(self) -> None:
        """Send the pending changes now, however short the time since the last call."""
        with self._send_lock:
            self._send_now()

    def _on_timer(self) -> None:
        with self._send_lock:
            if self._scheduled:  # otherwise `flush` has sent it
                self._send_now()

    def _send_now(self) -> None:
        with self._lock:
            self._scheduled = False
            self._last_time = self._clock()
        self._send()
