"""Progress on a terminal, and Ctrl-C as a request that work is kept for."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..progress import Interrupted, Progress

LINE_SECONDS = 10.0
"""Where no bar can be drawn, a line appears no more often than this."""

_asked = threading.Event()


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """Turn the first Ctrl-C (or SIGTERM) into a flag that `ShellProgress.check` reads; a second one ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread; whoever calls from another handles them
        return
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    _asked.clear()

    def ask(_kind: int, _frame: FrameType | None) -> None:
        if _asked.is_set():
            raise KeyboardInterrupt
        _asked.set()
        print("\nStopping after this step; once more to stop at once.", file=sys.stderr, flush=True)

    for kind in before:
        signal.signal(kind, ask)
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


class ShellProgress(Progress):
    """A bar on a terminal, plain lines otherwise, both on standard error."""

    def __init__(self) -> None:
        self._bar = None
        self._name, self._total, self._said = "", 0, 0.0

    def check(self) -> None:
        """Raise `Interrupted` once Ctrl-C was pressed."""
        if _asked.is_set():
            self.close()
            raise Interrupted

    def phase(self, name: str, total: int) -> None:
        """Begin a new bar."""
        self.close()
        self._name, self._total, self._said = name, total, time.monotonic()
        if sys.stderr.isatty():
            from tqdm import tqdm

            large = total > 100_000  # bytes
            self._bar = tqdm(total=total, desc=name, unit="B" if large else "", unit_scale=large, leave=False)
        else:
            print(f"{name} …", file=sys.stderr, flush=True)

    def advance(self, done: int, text: str = "") -> None:
        """Move the bar, or say so from time to time."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._said > LINE_SECONDS:
            self._said = time.monotonic()
            print(f"{self._name} {100 * done / max(self._total, 1):.0f} % {text}".rstrip(), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
