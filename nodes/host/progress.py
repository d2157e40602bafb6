"""Progress and interrupts: the running node's bar, text and preview, and the host's cancel button."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import comfy.model_management as management
import comfy.utils

from ...atelier.progress import Progress
from ...atelier.train.step_rate import format_rate
from . import graph, web_server

if TYPE_CHECKING:
    from PIL.Image import Image

Interrupt = management.InterruptProcessingException
"""What the host raises to end a run: a `BaseException`, not an `Exception`."""

TEXT_INTERVAL = 0.25
"""Least seconds between two texts for one node."""
RATE_DELAY = 1.0
"""Seconds of a phase before its rate is shown."""


class HostProgress(Progress):
    """Moves the running node's bar, text and preview, and stops the work when the user presses cancel.

    The bar goes through the host's throttled `ProgressBar`. Texts are sent at most four times a second, except that
    the last text of a phase is always sent.
    """

    def __init__(self) -> None:
        self._node = graph.running_node()[1] or None
        self._bar = comfy.utils.ProgressBar(1, node_id=self._node)
        self._phase = ""
        self._total = 1
        self._phase_start = self._text_time = 0.0

    def check(self) -> None:
        """Raise the host's interrupt (a `BaseException`) once the user asked to stop."""
        management.throw_exception_if_processing_interrupted()

    def phase(self, name: str, total: int) -> None:
        """Restart the bar for `total` steps of work called `name`."""
        self._phase, self._total, self._phase_start = name, max(total, 1), time.monotonic()
        self._bar = comfy.utils.ProgressBar(self._total, node_id=self._node)
        self.say(name)

    def advance(self, done: int, text: str = "") -> None:
        """Move the bar to `done` and write `text` on the node; the default is phase, count, rate and time left."""
        self._move(done)
        now = time.monotonic()
        if now - self._text_time >= TEXT_INTERVAL or done >= self._total:
            self.say(text or self._default_text(done, now - self._phase_start))

    def preview(self, image: Image) -> None:
        """Show `image` on the node, at the size set in the host for previews."""
        from comfy.cli_args import args

        self._move(self._bar.current, ("JPEG", image.convert("RGB"), args.preview_size))

    def say(self, text: str) -> None:
        """Write `text` on the node."""
        if self._node is not None:
            web_server.send_text(text, self._node)
        self._text_time = time.monotonic()

    def _move(self, done: int, preview: tuple[str, Image, int] | None = None) -> None:
        try:
            self._bar.update_absolute(done, preview=preview)
        except Interrupt:
            # The host's bar also polls for the interrupt and clears the request. Renew it, so that the work ends in
            # `check`, where it is ready to save its state.
            management.interrupt_current_processing()

    def _default_text(self, done: int, seconds: float) -> str:
        text = f"{self._phase} {done}/{self._total}"
        if 0 < done < self._total and seconds >= RATE_DELAY:
            text += f" · {format_rate(done / seconds, self._total - done)}"
        return text
