"""The folder of a run: where its state, checkpoints, samples, plot and report are.

A run's folder is named by the digest of model, pictures and configuration, so that the same request finds its own
finished result or the state to go on from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AtelierError
from ..files import write_json


@dataclass(frozen=True)
class RunStore:
    """Paths of one run."""

    folder: Path

    @property
    def state(self) -> Path:
        """What training goes on from after an interruption."""
        return self.folder / "state.safetensors"

    @property
    def best(self) -> Path:
        """The LoRA of the best look so far."""
        return self.folder / "best.safetensors"

    @property
    def last(self) -> Path:
        """The LoRA of the last step done."""
        return self.folder / "last.safetensors"

    def at(self, step: int) -> Path:
        """The LoRA kept at `step`."""
        return self.folder / f"step-{step:06d}.safetensors"

    def sample(self, step: int) -> Path:
        """The sample picture drawn after `step`."""
        return self.folder / "samples" / f"step-{step:06d}.png"

    @property
    def samples(self) -> list[Path]:
        """Sample pictures so far, oldest first."""
        return list(self.drawn.values())

    @property
    def drawn(self) -> dict[int, Path]:
        """Sample pictures so far by the step they were drawn after, oldest first."""
        steps = ((path.stem.removeprefix("step-"), path) for path in (self.folder / "samples").glob("step-*.png"))
        return dict(sorted((int(step), path) for step, path in steps if step.isdecimal()))

    @property
    def plot(self) -> Path:
        """The loss curve."""
        return self.folder / "loss.png"

    @property
    def report(self) -> Path:
        """Written last; a run that has one is finished."""
        return self.folder / "report.json"

    def write_report(self, values: Mapping[str, Any]) -> None:
        """Write the report, which marks the run as finished."""
        write_json(self.report, dict(values))

    def read_report(self) -> dict[str, Any] | None:
        """The report of a finished run, or None.

        Raises:
            AtelierError: the file is damaged.
        """
        try:
            return json.loads(self.report.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise AtelierError(f"The report {self.report} is damaged ({error}).",
                               "Delete that file to train again.") from error
