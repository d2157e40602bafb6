"""What long work tells its caller, and how its caller stops it.

Every stage that takes longer than a moment receives a `Progress`. The shell's draws a progress bar, the host's
moves the node's bar and raises the host's own interrupt; the base class here does nothing and suits tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


class Interrupted(Exception):
    """The user asked the work to stop. What was finished by then is kept."""


class Progress:
    """Receives progress and answers whether to go on. Subclass and override what you need.

    Methods are called from the thread that does the work, at least once per step, and must be quick.
    """

    def check(self) -> None:
        """Raise `Interrupted` (or the host's own exception) to end the work within this step."""

    def phase(self, name: str, total: int) -> None:
        """A phase begins ("converting", "encoding", "training", "sampling", "saving") with `total` steps."""

    def advance(self, done: int, text: str = "") -> None:
        """`done` of the phase's steps are finished; `text` is one short line for a person."""

    def preview(self, image: Image) -> None:
        """A picture worth showing now: a sample in training, a plot."""

    def measure(self, values: Mapping[str, float]) -> None:
        """Numbers of this moment, for a live curve: `step`, `loss`, `validation_loss`, `best_step`, `lr`, …"""

    def stop_requested(self) -> bool:
        """True once the user asked to end training now and go on with the best weights so far."""
        return False

    def sample_requested(self) -> bool:
        """True once for each time the user asked for a sample picture now."""
        return False
