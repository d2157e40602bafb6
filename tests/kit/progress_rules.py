"""What holds for all progress: a phase comes first, its steps only rise, never beyond its total, and between any two
work can be stopped.

A bar that runs backwards, past its end or without a phase is seen by everyone who waits, and a button that stops
nothing by everyone who presses it, but neither by an assertion about the result. So the base class, which most tests
pass on or leave to the default, watches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atelier.progress import Progress


class WrongProgress(BaseException):
    """Not an `Exception`: what catches those in order to go on must not catch this."""


@dataclass
class Phase:
    """A phase so far."""

    name: str
    total: int
    done: int = 0
    asked: bool = True
    """Whether the work asked to go on since its last step; its first may come with what is there already."""


def check(self: Any) -> None:
    """In place of `Progress.check`."""
    if phases_of(self):
        phases_of(self)[-1].asked = True


def phase(self: Any, name: str, total: int) -> None:
    """In place of `Progress.phase`."""
    if not name or total < 0:
        raise WrongProgress(f"phase {name!r} of {total} steps")
    phases_of(self).append(Phase(name, total))


def advance(self: Any, done: int, text: str = "") -> None:
    """In place of `Progress.advance`."""
    if type(self).phase is not phase:
        return  # a test watches by itself
    if not phases_of(self):
        raise WrongProgress(f"{done} steps before a phase {text}")
    now = phases_of(self)[-1]
    if not now.done <= done <= now.total:
        raise WrongProgress(f"{now.name}: {done} of {now.total} after {now.done} {text}")
    if done > now.done and now.total > 1 and not now.asked and type(self).check is check:
        raise WrongProgress(f"{now.name}: nobody could stop step {done} of {now.total} {text}")
    now.done, now.asked = done, False


def phases_of(progress: Progress) -> list[Phase]:
    """The phases so far."""
    return vars(progress).setdefault("_watched", [])


def watch() -> None:
    """Let the base class hold its callers to the rules."""
    Progress.check, Progress.phase, Progress.advance = check, phase, advance  # type: ignore[method-assign]
