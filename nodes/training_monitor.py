"""Progress of a trainer node: beside the host's bar a session for the panel, with its two buttons."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import host
from .coalesce import Throttle
from .sessions import Key, Session, Sessions

if TYPE_CHECKING:
    from PIL.Image import Image

EVENT = "atelier.training"
"""Name of the message to the editor; its content is `Session.news`."""
MEMORY_SECONDS = 1.0
"""Free memory is asked for no more often than this."""
SIDE = 512
"""Longest side in pixels of the sample pictures that are kept for the panel."""

sessions = Sessions()
"""Of this process."""


class TrainingProgress(host.HostProgress):
    """Also keeps a session for the panel, tells every editor that is open of its news, and obeys its buttons."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._memory_at = 0.0
        self._news = Throttle(lambda: host.send_event(EVENT, session.news()))

    def phase(self, name: str, total: int) -> None:
        """Begin a phase."""
        super().phase(name, total)
        self._session.phase(name, total)
        self._news.notify()

    def advance(self, done: int, text: str = "") -> None:
        """Move on in the phase."""
        super().advance(done, text)
        self._session.advance(done)
        self._news.notify()

    def preview(self, image: Image) -> None:
        """Show a sample picture: in the panel, not below it as well."""
        small = image.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        stream = io.BytesIO()
        small.save(stream, "JPEG", quality=88)
        self._session.picture(stream.getvalue())
        self._news.notify()

    def measure(self, values: Mapping[str, float]) -> None:
        """Take in losses and other numbers."""
        now = time.monotonic()
        if now - self._memory_at >= MEMORY_SECONDS:
            self._memory_at = now
            used, total = host.memory()
            values = {**values, "memory_used": used, "memory_total": total}
        self._session.measure(values)
        self._news.notify()

    def say(self, text: str) -> None:
        """Nothing: the panel says it."""

    def stop_requested(self) -> bool:
        """True once "Stop and keep" was pressed."""
        return self._session.stop_requested()

    def sample_requested(self) -> bool:
        """True once for "Sample now"."""
        return self._session.take_sample_request()

    def end(self, status: str, message: str = "") -> None:
        """The run is over; see `Session.end`. The editor hears of it before it hears that the node is done."""
        self._session.end(status, message)
        self._news.flush()


@contextmanager
def watched(node: Any, *, can_sample: bool) -> Iterator[TrainingProgress]:
    """A progress for the running node; a run that ends in an exception is shown as cancelled or failed.

    Args:
        node: The running node's class, an output node.
        can_sample: Whether there is a prompt to draw samples of.
    """
    prompt, name = host.running_node()
    progress = TrainingProgress(sessions.open(Key(prompt, name, host.workflow_id(node)), can_sample=can_sample))
    try:
        yield progress
    except host.Interrupt:
        progress.end("cancelled")
        raise
    except BaseException as error:  # it goes on up; the panel must not show a dead run as running
        progress.end("failed", str(error))
        raise
