"""Progress of a trainer node: the host's bar, and a session for the training panel with its two buttons."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..host import device, graph, web_server
from ..host.progress import HostProgress, Interrupt
from .sessions import Key, Session, Sessions
from .throttle import Throttle

if TYPE_CHECKING:
    from PIL.Image import Image

EVENT = "atelier.training"
"""Name of the event for the editor; its data is `Session.news`."""
_log = logging.getLogger("atelier")

LOG_INTERVAL = 30.0
"""Seconds between two lines in the host's log, for whoever looks at its window and not at the editor."""
MEMORY_INTERVAL = 1.0
"""Minimum seconds between two queries of the device's memory."""
SAMPLE_SIDE = 512
"""Height and half the width in pixels, at most, of the sample pictures that are kept for the panel."""

sessions = Sessions()
"""The sessions of this process."""


class TrainingProgress(HostProgress):
    """Also records a session for the panel, sends its news to every open editor, and reads its buttons."""

    def __init__(self, session: Session, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._session, self._clock = session, clock
        self._logged = clock() - LOG_INTERVAL
        self._memory_time = 0.0
        self._news = Throttle(lambda: web_server.send_event(EVENT, session.news()))

    def phase(self, name: str, total: int) -> None:
        """Begin a phase."""
        super().phase(name, total)
        self._session.phase(name, total)
        self._news.notify()

    def advance(self, done: int, text: str = "") -> None:
        """Report the finished steps of the phase."""
        super().advance(done, text)
        self._session.advance(done)
        self._news.notify()
        if text and self._clock() - self._logged >= LOG_INTERVAL:
            self._logged = self._clock()
            _log.info("Train LoRA: %s", text)

    def preview(self, image: Image) -> None:
        """Show a sample picture in the panel; the host's preview on the node would be a second copy."""
        small = image.convert("RGB")
        small.thumbnail((2 * SAMPLE_SIDE, SAMPLE_SIDE))  # several pictures of one round lie side by side
        stream = io.BytesIO()
        small.save(stream, "JPEG", quality=88)
        self._session.add_sample(stream.getvalue())
        self._news.notify()

    def measure(self, values: Mapping[str, float]) -> None:
        """Record losses and other numbers, and the memory in use."""
        now = time.monotonic()
        if now - self._memory_time >= MEMORY_INTERVAL:
            self._memory_time = now
            used, total = device.memory_usage()
            values = {**values, "memory_used": used, "memory_total": total}
        self._session.measure(values)
        self._news.notify()

    def say(self, text: str) -> None:
        """Write nothing on the node: the panel shows the same."""

    @property
    def run(self) -> str:
        """Names the session among all, for the node's output: the panel of a copy finds it by that."""
        return self._session.key.run

    @property
    def continues(self) -> bool:
        """True after "Go on": a run that the user stopped is trained to its end."""
        return self._session.continues

    def stop_requested(self) -> bool:
        """True once "Stop and keep" was pressed."""
        return self._session.stop_requested()

    def sample_requested(self) -> bool:
        """True once for "Sample now"."""
        return self._session.take_sample_request()

    def end(self, status: str, message: str = "") -> None:
        """End the session; see `Session.end`. The editor gets this before the host reports that the node is done."""
        self._session.end(status, message)
        self._news.flush()


@contextmanager
def training_progress(node: Any, *, can_sample: bool) -> Iterator[TrainingProgress]:
    """A `TrainingProgress` for the running node; an exception ends its session as cancelled or failed.

    Args:
        node: The running node's class, an output node.
        can_sample: Whether there is a prompt for sample pictures.
    """
    prompt, execution = graph.running_node()
    progress = TrainingProgress(sessions.open(Key(prompt, execution, graph.workflow_id(node)), can_sample=can_sample))
    try:
        yield progress
    except Interrupt:
        progress.end("cancelled")
        raise
    except BaseException as error:  # re-raised; the panel must not show a dead run as running
        progress.end("failed", str(error))
        raise
