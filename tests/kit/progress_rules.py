"""What holds for all progress: a phase comes first, its steps only rise, never beyond its total.

A bar that runs backwards, past its end or without a phase is seen by everyone who waits, and by no assertion about
the result. So the base class, which most tests pass on or leave to the default, watches.
"""

from __future__ import annotations

from typing import Any

from atelier.progress import Progress


class WrongProgress(BaseException):
    """Not an `Exception`: what catches those in order to go on must not catch this."""


def phase(self: Any, name: str, total: int) -> None:
    """In place of `Progress.phase`."""
    if not name or total < 0:
        raise WrongProgress(f"phase {name!r} of {total} steps")
    phases_of(self).append([name, total, 0])


def advance(self: Any, done: int, text: str = "") -> None:
    """In place of `Progress.advance`."""
    if type(self).phase is not phase:
        return  # a test watches by itself
    if not phases_of(self):
        raise WrongProgress(f"{done} steps before a phase {text}")
    name, total, before = phases_of(self)[-1]
    if not before <= done <= total:
        raise WrongProgress(f"{name}: {done} of {total} after {before} {text}")
    phases_of(self)[-1][2] = done


def phases_of(progress: Progress) -> list[list[Any]]:
    """[name, total, steps done] of each phase so far."""
    return vars(progress).setdefault("_watched", [])


def watch() -> None:
    """Let the base class hold its callers to the rules."""
    Progress.phase, Progress.advance = phase, advance  # type: ignore[method-assign]
