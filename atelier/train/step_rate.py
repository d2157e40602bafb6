"""The rate of training, for the time that is left."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

WINDOW = 60.0
"""Seconds that the rate is measured over. What took long before, such as compiling or other work of the machine, does
not count."""


class StepRate:
    """Steps a second over the last `WINDOW` seconds, or since the last step before them where steps take that long.

    Validation and sample pictures are left out by whoever does them (`leave_out`). The first step, which compiles,
    allocates and warms up, counts only as long as nothing else is known.

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

    def leave_out(self, seconds: float) -> None:
        """Take as not passed the last `seconds`, in which no step was done."""
        self._marks = deque((at + seconds, step) for at, step in self._marks)


def format_speed(rate: float) -> str:
    """`rate` in steps a second as "1.25 it/s", or as "2.0 s/it" below one step a second."""
    return f"{_rounded(rate, 2):.2f} it/s" if rate >= 1 else f"{_rounded(1 / max(rate, 1e-9), 1):.1f} s/it"


def format_duration(seconds: float) -> str:
    """`seconds` as "0:07", "12:40" or "3:05:00", rounded to whole seconds."""
    minutes, rest = divmod(int(_rounded(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def format_rate(rate: float, steps_left: int) -> str:
    """`rate` in steps a second and the time that `steps_left` take at it, such as "1.25 it/s · 3:02 left"."""
    return f"{format_speed(rate)} · {format_duration(steps_left / max(rate, 1e-9))} left"


def _rounded(value: float, digits: int) -> float:
    # Half up, as web/js/training/format.js does, so that the panel and the log show the same text.
    return math.floor(value * 10**digits + 0.5) / 10**digits
