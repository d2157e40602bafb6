"""How fast training goes now, for the time that is left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW = 60.0
"""Seconds that the pace looks back. What took long before, such as compiling or other work of the machine, is past."""


class StepRate:
    """Steps a second over the last `WINDOW` seconds, or since the last step before them where steps take that long.

    What happens between steps, such as validation and sample pictures, counts as far as it lies within the window. The
    first step, which compiles, allocates and warms up, is counted only as long as nothing else is known.

    Args:
        step: Steps done when the clock starts.
        clock: Seconds, never going back.
    """

    def __init__(self, step: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks = deque([(clock(), step)])
        self._first = True

    def reach(self, step: int) -> float:
        """So many steps are done now; returns steps a second."""
        now = self._clock()
        self._marks.append((now, step))
        if self._first and len(self._marks) == 3:
            self._marks.popleft()
            self._first = False
        while len(self._marks) > 2 and self._marks[1][0] <= now - WINDOW:
            self._marks.popleft()
        (began, before), *_ = self._marks
        return (step - before) / max(now - began, 1e-9)


def format_rate(pace: float, steps_left: int) -> str:
    """`pace` in steps a second, and the time that `steps_left` take at it, such as "1.25 it/s · 3:02 left"."""
    shown = f"{pace:.2f} it/s" if pace >= 1 else f"{1 / max(pace, 1e-9):.1f} s/it"
    left = int(steps_left / max(pace, 1e-9))
    return f"{shown} · {left // 60}:{left % 60:02d} left"
