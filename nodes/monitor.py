"""Progress on the running node, and the host's interrupt."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import comfy.model_management as management
import comfy.utils
from comfy_execution.utils import get_executing_context

from ..atelier.progress import Progress

if TYPE_CHECKING:
    from PIL.Image import Image

TEXT_INTERVAL = 0.25
"""Least seconds between two texts for one node."""


def check_interrupt() -> None:
    """Raise the host's own interrupt (a `BaseException`) once the user asked to stop."""
    management.throw_exception_if_processing_interrupted()


class HostProgress(Progress):
    """Moves the running node's bar, text and preview, and stops the work when the user presses cancel.

    The bar goes through the host's throttled `ProgressBar`; texts are sent at most four times a second, and the last
    of a phase always.
    """

    def __init__(self) -> None:
        context = get_executing_context()
        self._node = context.node_id if context else None
        self._bar = comfy.utils.ProgressBar(1, node_id=self._node)
        self._phase = ""
        self._total = 1
        self._began = self._said = 0.0

    def check(self) -> None:
        """Raise the host's interrupt once it was asked for."""
        check_interrupt()

    def phase(self, name: str, total: int) -> None:
        """Start the bar anew for `total` steps of work called `name`."""
        self._phase, self._total, self._began = name, max(total, 1), time.monotonic()
        self._bar = comfy.utils.ProgressBar(self._total, node_id=self._node)
        self.say(name)

    def advance(self, done: int, text: str = "") -> None:
        """Move the bar to `done` and write `text` on the node; without one, phase, count, speed and time left."""
        self._move(done)
        now = time.monotonic()
        if now - self._said >= TEXT_INTERVAL or done >= self._total:
            speed = _speed(done, self._total, now - self._began)
            self.say(text or f"{self._phase} {done}/{self._total}" + (f" · {speed}" if speed else ""))

    def preview(self, image: Image) -> None:
        """Show `image` on the node, at the size the host chose for previews."""
        from comfy.cli_args import args

        self._move(self._bar.current, ("JPEG", image.convert("RGB"), args.preview_size))

    def _move(self, done: int, preview: tuple[str, Image, int] | None = None) -> None:
        try:
            self._bar.update_absolute(done, preview=preview)
        except management.InterruptProcessingException:
            # The host's bar polls, too, and clears the request. Work ends where it asks whether to go on, in `check`,
            # where it is ready to save what it has.
            management.interrupt_current_processing()

    def say(self, text: str) -> None:
        """Write `text` on the node."""
        server = _server()
        if server is not None and self._node is not None:
            server.send_progress_text(text, self._node)
        self._said = time.monotonic()


def send_event(name: str, data: dict[str, Any]) -> None:
    """Send an event to every open editor: the one that queued the prompt may be gone and back as another."""
    server = _server()
    if server is not None:
        server.send_sync(name, data)


def route_table() -> Any:
    """The host's aiohttp route table, to which a pack may add while it loads; None where there is no server."""
    server = _server()
    return None if server is None else server.routes


def running_node() -> tuple[str, str]:
    """(prompt id, execution id) of the node that runs in this thread; empty outside a run."""
    context = get_executing_context()
    return (context.prompt_id, context.node_id) if context else ("", "")


def _server() -> Any:
    from server import PromptServer

    # Absent in a process that has the host's modules but no server: tests, scripts.
    return getattr(PromptServer, "instance", None)


def _speed(done: int, total: int, seconds: float) -> str:
    """"2.1 it/s, 0:42 left"; nothing before the first second."""
    if done <= 0 or seconds < 1:
        return ""
    rate = done / seconds
    left = round((total - done) / rate)
    speed = f"{rate:.1f} it/s" if rate >= 1 else f"{1 / rate:.1f} s/it"
    return f"{speed}, {left // 60}:{left % 60:02d} left" if left else speed
