"""The losses of a run, for the plot, the report and the live curve."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ..pictures.decode import DECODER_ERRORS
from ..pictures.side_by_side import side_by_side
from ..progress import Progress
from .run_folder import RunFolder

log = logging.getLogger("atelier")

PICTURES = 12
"""So many of the newest sample pictures are shown again."""


@dataclass
class History:
    """Losses by optimiser step. Grows during the run and is saved with its state."""

    losses: list[float] = field(default_factory=list)
    """Training loss of each optimiser step, from step 1."""
    validation: list[tuple[int, float]] = field(default_factory=list)
    """(step, loss) of each validation."""
    epochs: list[tuple[int, float]] = field(default_factory=list)
    """(step, mean training loss) at the end of each epoch."""
    judged: list[tuple[int, float]] = field(default_factory=list)
    """(step, score) of each round of samples that early stopping judged by."""

    def show(self, progress: Progress, folder: RunFolder) -> None:
        """Tell `progress` of everything measured so far, in order of steps, with the sample pictures and scores in the
        run's folder; pictures that cannot be read are left out."""
        validation, pictures, scores = dict(self.validation), folder.drawn, folder.scores
        shown = sorted(pictures)[-PICTURES:]
        for step, loss in enumerate([None, *self.losses]):
            if loss is not None:
                progress.measure({"step": step, "loss": loss})
            if step in validation:
                progress.measure({"step": step, "validation_loss": validation[step]})
            if step in scores:
                progress.measure({"step": step, **asdict(scores[step])})
            if step in shown:
                _preview(progress, pictures[step])

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> History:
        """The inverse of `dataclasses.asdict`, by way of JSON."""
        return History(list(values["losses"]), [(int(s), float(v)) for s, v in values["validation"]],
                       [(int(s), float(v)) for s, v in values["epochs"]],
                       [(int(s), float(v)) for s, v in values.get("judged", [])])  # older runs have none


def _preview(progress: Progress, paths: Sequence[Path]) -> None:
    pictures = []
    for path in paths:
        try:
            with Image.open(path) as picture:
                picture.load()
        except DECODER_ERRORS as error:  # a damaged picture is no reason to end the training it shows
            log.warning("The sample picture %s is not shown: %s", path, error)
            continue
        pictures.append(picture)
    if pictures:
        progress.preview(side_by_side(pictures))


def smoothed(values: list[float], weight: float = 0.9) -> list[float]:
    """Exponential moving average of `values`, corrected for its start (Kingma & Ba 2015, section 3)."""
    result, average, mass = [], 0.0, 0.0
    for value in values:
        average = weight * average + (1 - weight) * value
        mass = weight * mass + (1 - weight)
        result.append(average / mass)
    return result
