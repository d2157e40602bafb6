"""The training sessions of this server process, kept so that a reopened panel can show them again.

A `Session` belongs to one run of one trainer node. The training thread writes to it; the server's thread reads it to
answer requests, and leaves the user's requests in it. Nothing here depends on the host.
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
STOPPED = "stopped by user"
CURVES = {"loss": "losses", "validation_loss": "validation", "fidelity": "fidelity", "likeness": "likeness"}
"""Name of the curve of each measurement that has one."""
MAX_POINTS = 4096
"""Most points kept of one curve."""
MAX_SAMPLES = 12
"""Most sample pictures kept of one session; the oldest are dropped."""
MAX_SESSIONS = 16
"""Most sessions kept; the oldest that have ended are dropped."""


class Curve:
    """Values by step. Once there are too many, neighbouring points are averaged, so that memory stays bounded."""

    def __init__(self, max_points: int = MAX_POINTS) -> None:
        self._max_points, self._stride = max_points, 1
        self._points: list[tuple[int, float]] = []
        self._pending: list[float] = []
        self._step = 0

    def add(self, step: int, value: float) -> None:
        """Append a value."""
        self._pending.append(value)
        self._step = step
        if len(self._pending) == self._stride:
            self._points.append((step, math.fsum(self._pending) / self._stride))
            self._pending = []
        if len(self._points) >= self._max_points:
            pairs = zip(self._points[::2], self._points[1::2], strict=False)
            self._points = [(later, (a + b) / 2) for (_, a), (later, b) in pairs]
            self._stride *= 2

    def points(self) -> list[tuple[int, float]]:
        """(step, value) by rising step; the last step added is always the last one here."""
        rest = [(self._step, math.fsum(self._pending) / len(self._pending))] if self._pending else []
        return [*self._points, *rest]


@dataclass(frozen=True)
class Key:
    """Identifies one run of one node."""

    prompt: str
    """Prompt id in the host's queue."""
    node: str
    """The host's execution id: "4", or "12:4" for node 4 in subgraph node 12."""
    workflow: str = ""
    """The id the editor gave the graph; empty for a graph that was queued without one."""
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Distinguishes runs with the same other fields: given a list, the host runs a node several times in one prompt."""


class Session:
    """State, curves and sample pictures of one run of a trainer node, and the user's requests to it.

    Args:
        key: Which run.
        can_sample: Whether there is a prompt for sample pictures.
    """

    def __init__(self, key: Key, *, can_sample: bool, continues: bool = False) -> None:
        self.key, self.can_sample, self.continues = key, can_sample, continues
        self.continue_requested = False
        self._lock = threading.Lock()
        self._status, self._message = RUNNING, ""
        self._phase: dict[str, Any] = {"name": "starting", "done": 0, "total": 0}
        self._values: dict[str, float] = {}
        self._curves = {name: Curve() for name in CURVES.values()}
        self._news: dict[str, list[tuple[int, float]]] = {name: [] for name in self._curves}
        self._samples: OrderedDict[int, bytes] = OrderedDict()
        self._message_count = 0
        self._stop_requested = self._sample_requested = False

    # Called by the training thread --------------------------------------------------------------------------------

    def phase(self, name: str, total: int) -> None:
        """Begin a phase of `total` steps."""
        with self._lock:
            self._phase = {"name": name, "done": 0, "total": total}

    def advance(self, done: int) -> None:
        """Set the number of finished steps of the phase."""
        with self._lock:
            self._phase["done"] = done

    def measure(self, values: Mapping[str, float]) -> None:
        """Record numbers as given to `atelier.progress.Progress.measure`; losses and scores are added to the curves.
        """
        with self._lock:
            step = int(values.get("step", 0))
            for name, curve in CURVES.items():
                # JSON cannot hold NaN; a run whose training loss is NaN ends with an error that says so.
                if name in values and math.isfinite(values[name]):
                    self._curves[curve].add(step, values[name])
                    self._news[curve].append((step, values[name]))
            self._values.update({name: value for name, value in values.items() if math.isfinite(value)})

    def add_sample(self, jpeg: bytes) -> None:
        """Add a sample picture, drawn after the last measured step."""
        with self._lock:
            self._samples[int(self._values.get("step", 0))] = jpeg
            while len(self._samples) > MAX_SAMPLES:
                self._samples.popitem(last=False)

    def end(self, status: str, message: str = "") -> None:
        """End the session.

        Args:
            status: "complete", "stopped early", "stopped by user", "reused", "cancelled" or "failed".
            message: For the user: why it failed, or a warning about the result.
        """
        with self._lock:
            self._status, self._message = status, message
            self._stop_requested = self._sample_requested = False

    def stop_requested(self) -> bool:
        """True once the user asked to end training and keep the best weights."""
        return self._stop_requested

    def take_sample_request(self) -> bool:
        """Whether a sample was requested; clears the request."""
        with self._lock:
            requested, self._sample_requested = self._sample_requested, False
        return requested

    # Called by the server's thread ---------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """False once the node is done."""
        return self._status == RUNNING

    def request_stop(self) -> None:
        """Request the end of training; repeated requests count once."""
        with self._lock:
            self._stop_requested = self._stop_requested or self._status == RUNNING

    def request_sample(self) -> None:
        """Request a sample picture after the running step; until it is drawn, repeated requests count once."""
        with self._lock:
            self._sample_requested = self._status == RUNNING and self.can_sample

    def request_continue(self) -> None:
        """Request that the next run of the node trains the steps that the user's stop left."""
        with self._lock:
            self.continue_requested = self.stopped

    @property
    def stopped(self) -> bool:
        """True if the user ended training and kept the weights."""
        return self._status == STOPPED

    def sample(self, step: int) -> bytes | None:
        """The sample picture drawn after `step`, as JPEG; None if there is none."""
        with self._lock:
            return self._samples.get(step)

    def snapshot(self) -> dict[str, Any]:
        """The whole state, for a panel that has just opened."""
        with self._lock:
            return self._state() | {name: curve.points() for name, curve in self._curves.items()}

    def news(self) -> dict[str, Any]:
        """The changes since the last call; `number` counts the calls, so that a listener notices a lost message."""
        with self._lock:
            self._message_count += 1
            news, self._news = self._news, {name: [] for name in self._curves}
            return self._state() | news

    def _state(self) -> dict[str, Any]:
        return {"prompt": self.key.prompt, "node": self.key.node, "workflow": self.key.workflow, "run": self.key.run,
                "number": self._message_count, "status": self._status, "message": self._message,
                "phase": dict(self._phase), "values": dict(self._values), "samples": list(self._samples),
                "can_sample": self.can_sample, "stopping": self._stop_requested, "sample_asked": self._sample_requested}


class Sessions:
    """The sessions of this process, newest last; only the latest of each node of each workflow."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: list[Session] = []
        self.continued = 0
        """How often a stopped training was asked to go on."""

    def open(self, key: Key, *, can_sample: bool) -> Session:
        """Open a session; it replaces the earlier one of the same node, and continues it if that was requested."""
        with self._lock:
            earlier = [s for s in self._all if (s.key.workflow, s.key.node) == (key.workflow, key.node)]
            session = Session(key, can_sample=can_sample, continues=any(s.continue_requested for s in earlier))
            kept = [s for s in self._all if s not in earlier]
            ended = [s for s in kept if not s.running]
            dropped = ended[:max(0, len(kept) + 1 - MAX_SESSIONS)]
            self._all = [*(s for s in kept if s not in dropped), session]
        return session

    def request_continue(self, stopped: list[Session]) -> None:
        """Request that the nodes of these sessions go on when they run again."""
        for session in stopped:
            session.request_continue()
        with self._lock:
            self.continued += bool(stopped)

    def find(self, prompt: str = "", node: str = "", workflow: str = "", run: str = "") -> list[Session]:
        """The sessions that match all arguments; an empty argument matches every session."""
        selection = {"prompt": prompt, "node": node, "workflow": workflow, "run": run}
        with self._lock:
            return [session for session in self._all
                    if all(not text or getattr(session.key, name) == text for name, text in selection.items())]
