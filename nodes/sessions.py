"""What is known of the trainings of this server process, for a panel that comes, goes and comes again.

A `Session` belongs to one run of one trainer node. The training thread writes to it; the server's thread reads it for
whoever asks and leaves requests in it. Nothing here knows of the host.
"""

from __future__ import annotations

import math
import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RUNNING = "running"
POINTS = 4096
"""Most points kept of one curve."""
PICTURES = 12
"""Most sample pictures kept of one session; older ones go."""
SESSIONS = 16
"""Most sessions kept; of those that ended, the oldest go."""


class Curve:
    """Values by step. Once there are too many, neighbours are joined into their mean, so that memory stays bounded."""

    def __init__(self, most: int = POINTS) -> None:
        self._most, self._stride = most, 1
        self._points: list[tuple[int, float]] = []
        self._open: list[float] = []
        self._step = 0

    def add(self, step: int, value: float) -> None:
        """The next point."""
        self._open.append(value)
        self._step = step
        if len(self._open) == self._stride:
            self._points.append((step, math.fsum(self._open) / self._stride))
            self._open = []
        if len(self._points) >= self._most:
            pairs = zip(self._points[::2], self._points[1::2], strict=False)
            self._points = [(later, (a + b) / 2) for (_, a), (later, b) in pairs]
            self._stride *= 2

    def points(self) -> list[tuple[int, float]]:
        """(step, value), steps rising; the last step added is always the last one here."""
        rest = [(self._step, math.fsum(self._open) / len(self._open))] if self._open else []
        return [*self._points, *rest]


@dataclass(frozen=True)
class Key:
    """Which run of which node."""

    prompt: str
    """Of the host's queue."""
    node: str
    """The host's execution id: "4", or "12:4" for node 4 in subgraph node 12."""
    workflow: str = ""
    """The id the editor gave the graph; empty for a graph that came from elsewhere."""
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Tells runs apart where the rest does not: given a list, the host runs a node several times in one prompt."""


class Session:
    """State, curves and pictures of one run of a trainer node, and what the user asked of it.

    Args:
        key: Which run.
        can_sample: Whether there is a prompt to draw samples of.
    """

    def __init__(self, key: Key, *, can_sample: bool) -> None:
        self.key, self.can_sample = key, can_sample
        self._lock = threading.Lock()
        self._status, self._message = RUNNING, ""
        self._phase: dict[str, Any] = {"name": "starting", "done": 0, "total": 0}
        self._values: dict[str, float] = {}
        self._curves = {"losses": Curve(), "validation": Curve()}
        self._news: dict[str, list[tuple[int, float]]] = {name: [] for name in self._curves}
        self._pictures: OrderedDict[int, bytes] = OrderedDict()
        self._number = 0
        self._stop = self._sample = False

    # The training thread writes -------------------------------------------------------------------------------------

    def phase(self, name: str, total: int) -> None:
        """A phase of `total` steps begins."""
        with self._lock:
            self._phase = {"name": name, "done": 0, "total": total}

    def advance(self, done: int) -> None:
        """So many steps of the phase are done."""
        with self._lock:
            self._phase["done"] = done

    def measure(self, values: Mapping[str, float]) -> None:
        """Take in numbers as `atelier.progress.Progress.measure` gets them; losses become points of the curves."""
        with self._lock:
            step = int(values.get("step", 0))
            for name, curve in (("loss", "losses"), ("validation_loss", "validation")):
                # NaN has no place in JSON; a run whose training loss is NaN ends with an error that says so.
                if name in values and math.isfinite(values[name]):
                    self._curves[curve].add(step, values[name])
                    self._news[curve].append((step, values[name]))
            self._values.update({name: value for name, value in values.items() if math.isfinite(value)})

    def picture(self, jpeg: bytes) -> None:
        """A sample picture was drawn after the last step measured."""
        with self._lock:
            self._pictures[int(self._values.get("step", 0))] = jpeg
            while len(self._pictures) > PICTURES:
                self._pictures.popitem(last=False)

    def end(self, status: str, message: str = "") -> None:
        """The run is over: "complete", "stopped early", "stopped by user", "reused", "cancelled" or "failed".

        Args:
            message: What the user should know: why it failed, or what the result suffers from.
        """
        with self._lock:
            self._status, self._message = status, message
            self._stop = self._sample = False

    def stop_requested(self) -> bool:
        """True once the user asked to end training and keep what is best."""
        return self._stop

    def take_sample_request(self) -> bool:
        """True once for one or more requests."""
        with self._lock:
            asked, self._sample = self._sample, False
        return asked

    # The server's thread asks ---------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """False once the node is done."""
        return self._status == RUNNING

    def ask_stop(self) -> None:
        """Ask for the end of training. Asking again changes nothing."""
        with self._lock:
            self._stop = self._stop or self._status == RUNNING

    def ask_sample(self) -> None:
        """Ask for a picture after the running step. Asking again before it is drawn changes nothing."""
        with self._lock:
            self._sample = self._status == RUNNING and self.can_sample

    def sample(self, step: int) -> bytes | None:
        """The picture drawn after `step`, as JPEG."""
        with self._lock:
            return self._pictures.get(step)

    def snapshot(self) -> dict[str, Any]:
        """Everything, for a panel that knows nothing yet."""
        with self._lock:
            return self._state() | {name: curve.points() for name, curve in self._curves.items()}

    def news(self) -> dict[str, Any]:
        """What changed since the last call; `number` counts the calls, so that a listener sees when it missed one."""
        with self._lock:
            self._number += 1
            news, self._news = self._news, {name: [] for name in self._curves}
            return self._state() | news

    def _state(self) -> dict[str, Any]:
        return {"prompt": self.key.prompt, "node": self.key.node, "workflow": self.key.workflow, "run": self.key.run,
                "number": self._number, "status": self._status, "message": self._message, "phase": dict(self._phase),
                "values": dict(self._values), "samples": list(self._pictures), "can_sample": self.can_sample,
                "stopping": self._stop, "sample_asked": self._sample}


class Sessions:
    """The sessions of this process, newest last: for each node of each workflow the latest one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: list[Session] = []

    def open(self, key: Key, *, can_sample: bool) -> Session:
        """A new session; it takes the place of the same node's earlier one."""
        session = Session(key, can_sample=can_sample)
        with self._lock:
            kept = [s for s in self._all if (s.key.workflow, s.key.node) != (key.workflow, key.node)]
            ended = [s for s in kept if not s.running]
            dropped = ended[:max(0, len(kept) + 1 - SESSIONS)]
            self._all = [*(s for s in kept if s not in dropped), session]
        return session

    def find(self, prompt: str = "", node: str = "", workflow: str = "", run: str = "") -> list[Session]:
        """The sessions that match; an empty text matches every one."""
        wanted = {"prompt": prompt, "node": node, "workflow": workflow, "run": run}
        with self._lock:
            return [session for session in self._all
                    if all(not text or getattr(session.key, name) == text for name, text in wanted.items())]
