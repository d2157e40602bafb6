"""The rate of training, for the time that is left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW = 60.0
"""Seconds that the rate is measured over. What took long before, such as compiling or other work of the machine, does
not count."""


class StepRate:
    """Steps a second over the last `WINDOW` seconds, or since the last step before them where steps take that long.

    What happens between steps, such as validation and sample pictures, counts as far as it lies within the window. The
    first step, which compiles, allocates and warms up, counts only as long as nothing else is known.

    Args:
        step: Steps done when the clock starts.
        clock: Seconds, never going back.
    """

    def __init__(self, step: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks = deque([(clock(), step)])
        self._first = True

    def update(self, step: int) -> float:
        """Take in that `step` steps are done now; returns steps a second."""
        now = self._clock()
        self._marks.append((now, step))
        if self._first and len(self._marks) == 3:
            self._marks.popleft()
            self._first = False
        while len(self._marks) > 2 and self._marks[1][0] <= now - WINDOW:
            self._marks.popleft()
        (began, before), *_ = self._marks
        return (step - before) / max(now - began, 1e-9)


def format_rate(rate: float, steps_left: int) -> str:
    """`rate` in steps a second, and the time that `steps_left` take at it, such as "1.25 it/s · 3:02 left"."""
    shown = f"{rate:.2f} it/s" if rate >= 1 else f"{1 / max(rate, 1e-9):.1f} s/it"
    left = int(steps_left / max(rate, 1e-9))
    return f"{shown} · {left // 60}:{left % 60:02d} left"
