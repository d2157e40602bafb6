"""Progress on a terminal, and interrupts by Ctrl-C that keep finished work."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..progress import Interrupted, Progress

LINE_SECONDS = 10.0
"""Minimum seconds between lines where no bar can be drawn."""

_STANDARD_ERROR = 2

_interrupt_requested = threading.Event()


@contextmanager
def graceful_interrupts() -> Iterator[None]:
    """Turn the first Ctrl-C (or SIGTERM) into a flag that `ShellProgress.check` reads; a second raises at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals
        return
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    _interrupt_requested.clear()

    def ask(_kind: int, _frame: FrameType | None) -> None:
        if _interrupt_requested.is_set():
            raise KeyboardInterrupt
        _interrupt_requested.set()
        # Past the buffer: the signal may have come in the middle of a line, and no buffer takes a second writer.
        os.write(_STANDARD_ERROR, b"\nStopping after this step; once more to stop at once.\n")

    for kind in before:
        signal.signal(kind, ask)
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


class QuietProgress(Progress):
    """Shows nothing, but takes Ctrl-C: for a process beside one that shows progress."""

    def check(self) -> None:
        """Raise `Interrupted` after Ctrl-C was pressed."""
        if _interrupt_requested.is_set():
            self.close()
            raise Interrupted

    def close(self) -> None:
        """Nothing is open."""


class ShellProgress(QuietProgress):
    """A bar on a terminal, plain lines otherwise, both on standard error."""

    def __init__(self) -> None:
        self._bar = None
        self._name, self._total, self._last_line = "", 0, 0.0

    def phase(self, name: str, total: int) -> None:
        """Start a new bar."""
        self.close()
        self._name, self._total, self._last_line = name, total, time.monotonic()
        if sys.stderr.isatty():
            from tqdm import tqdm

            large = total > 100_000  # bytes
            self._bar = tqdm(total=total, desc=name, unit="B" if large else "", unit_scale=large, leave=False)
        else:
            print(f"{name} …", file=sys.stderr, flush=True)

    def advance(self, done: int, text: str = "") -> None:
        """Move the bar, or print a line from time to time."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._last_line > LINE_SECONDS:
            self._last_line = time.monotonic()
            print(f"{self._name} {100 * done / max(self._total, 1):.0f} % {text}".rstrip(), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
