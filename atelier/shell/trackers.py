"""Numbers of a training for engineers: TensorBoard and Weights & Biases by Accelerate's trackers, or lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker

from ..errors import AtelierError, MissingPackage
from ..train.request.request import FIELDS, TrainRequest
from .progress import ShellProgress

_PROJECT = "atelier"
"""The project in Weights & Biases."""


class JsonLines(GeneralTracker):
    """Adds a line for each report to `<folder>/<name>.jsonl`: `step` and the values."""

    name = "jsonl"
    requires_logging_directory = True

    def __init__(self, run_name: str, logging_dir: Path) -> None:
        super().__init__()
        self.path = logging_dir / f"{run_name}.jsonl"

    def start(self) -> None:
        """Make the folder."""
        self.path.parent.mkdir(parents=True, exist_ok=True)

    @property
    def tracker(self) -> Path:
        """The file."""
        return self.path

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """A line with the configuration."""
        self._add({"config": values})

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        """A line with the values."""
        self._add({"step": step, **values})

    def _add(self, values: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(values, ensure_ascii=False) + "\n")


class _TrackedProgress(ShellProgress):
    def __init__(self, trackers: Sequence[Any]) -> None:
        super().__init__()
        self._trackers = trackers

    def measure(self, values: Mapping[str, float]) -> None:
        """Hand on what belongs to a step."""
        measured = {name: value for name, value in values.items() if name not in ("step", "steps")}
        for tracker in self._trackers:
            tracker.log(measured, step=int(values["step"]))


@contextmanager
def tracked_progress(kinds: Sequence[str], name: str, folder: Path, request: TrainRequest) -> Iterator[ShellProgress]:
    """Progress in the shell whose measurements trackers get, too; at its end they write what they still hold.

    Args:
        kinds: "tensorboard", "wandb" or "jsonl".
        name: Of the run; may hold slashes.
        folder: Where trackers write that do so on this machine.
        request: What is trained; recorded by flat names.

    Raises:
        AtelierError: a tracker cannot be started.
        MissingPackage: a tracker's package is not installed.
    """
    PartialState()  # Accelerate's trackers log through it
    trackers = [_start(kind, name, folder) for kind in dict.fromkeys(kinds)]
    try:
        for tracker in trackers:
            tracker.store_init_configuration(_values(request))
        yield _TrackedProgress(trackers)
    finally:
        for tracker in trackers:
            tracker.finish()


def _values(request: TrainRequest) -> dict[str, Any]:
    parts = {name: getattr(request, part) if part else request for name, part in FIELDS.items()}
    return {name: getattr(part, name) for name, part in parts.items()}


def _start(kind: str, name: str, folder: Path) -> Any:
    try:
        if kind == "wandb":
            tracker = WandBTracker(_PROJECT, name=name, dir=str(folder))
        else:
            tracker = TensorBoardTracker(name, folder) if kind == "tensorboard" else JsonLines(name, folder)
        tracker.main_process_only = False  # the first process alone makes them
        folder.mkdir(parents=True, exist_ok=True)
        getattr(tracker, "start", lambda: None)()  # older releases start by themselves
    except ImportError as error:
        raise MissingPackage(kind, f"--log {kind}") from error
    except Exception as error:
        raise AtelierError(f"The tracker {kind} could not be started ({error}).",
                           "Check its own set-up, or leave out --log.") from error
    return tracker
