"""Progress reports of long work to its caller, and the caller's way to stop it.

Every stage that takes longer than a moment receives a `Progress`. The shell's draws a progress bar, the host's
moves the node's bar and raises the host's own interrupt; the base class here does nothing and suits tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


class Interrupted(Exception):
    """The user asked to stop. Work finished so far is kept."""


class Progress:
    """Receives progress and says whether to continue. Subclass it and override what you need.

    Methods are called from the thread that does the work, at least once per step, and must be quick.
    """

    def check(self) -> None:
        """Raise `Interrupted` (or the host's own exception) to end the work within this step."""

    def phase(self, name: str, total: int) -> None:
        """Begin a phase ("converting", "encoding", "training", "sampling", "saving") of `total` steps."""

    def advance(self, done: int, text: str = "") -> None:
        """Report that `done` of the phase's steps are finished; it rises to the phase's total and never beyond.

        `text` is one short line for a person.
        """

    def preview(self, image: Image) -> None:
        """Show a picture now: a sample drawn in training, a plot."""

    def measure(self, values: Mapping[str, float]) -> None:
        """Report current values for a live curve: `step`, `loss`, `validation_loss`, `best_step`, `lr`, …"""

    def stop_requested(self) -> bool:
        """True once the user asked to end training now and go on with the best weights so far."""
        return False

    def sample_requested(self) -> bool:
        """True once for each time the user asked for a sample picture now."""
        return False
