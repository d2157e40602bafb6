"""A model of a comparison: its files, LoRA strength and sampler settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..errors import AtelierError
from ..models.inspect import inspect
from ..models.kinds import SamplerAdvice, kind_of

PRECISIONS = ("default", "fp32", "fp16", "bf16")


@dataclass(frozen=True, kw_only=True)
class ComparedModel:
    """A checkpoint with or without a LoRA, and how to sample it.

    Raises:
        AtelierError: a value is out of range; the message names the field.
    """

    checkpoint: str
    """As the host lists it."""
    sampler: str
    scheduler: str
    steps: int
    cfg: float
    lora: str = ""
    """As the host lists it; empty for none."""
    strength: float = 1.0
    precision: str = "default"
    """What the UNet computes in: one of `PRECISIONS`."""
    label: str = ""
    """Name in tables and grids; empty: composed from the file names."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise AtelierError(f"steps is {self.steps}.", "Choose at least 1.")
        if self.precision not in PRECISIONS:
            raise AtelierError(f"precision is {self.precision!r}.", f"Choose one of: {', '.join(PRECISIONS)}.")

    @property
    def name(self) -> str:
        """The label, or one composed from the file names, the strength and the precision."""
        if self.label.strip():
            return self.label.strip()
        lora = f" + {_stem(self.lora)} at {self.strength:g}" if self.lora else ""
        return f"{_stem(self.checkpoint)}{lora}" + ("" if self.precision == "default" else f", {self.precision}")

    @property
    def tuned(self) -> bool:
        """Whether a LoRA changes the model."""
        return bool(self.lora and self.strength)

    def key(self, prompt: str, negative: str, seed: int, size: tuple[int, int], states: Sequence[str]) -> str:
        """Hex digest of everything a picture and its measurements depend on; labels are excluded.

        Args:
            size: (width, height) in pixels.
            states: Digests of the model files' states and of the software and device that compute the picture.
        """
        parts = [asdict(self if self.tuned else replace(self, lora="", strength=1.0)) | {"label": ""}, prompt, negative,
                 seed, size, list(states)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with "(2)", "(3)", … appended to repeated ones."""
    unique: list[str] = []
    for name in names:
        number, candidate = 1, name
        while candidate in unique:
            number += 1
            candidate = f"{name} ({number})"
        unique.append(candidate)
    return tuple(unique)


def advice_for(path: Path, lora: str = "") -> SamplerAdvice:
    """Recommended settings of a checkpoint; a LoRA with Turbo or Lightning in its name takes precedence.

    Raises:
        AtelierError: the file is not a readable model.
    """
    inspection = inspect(path)
    return kind_of(inspection.family, inspection.prediction_type, f"{path.name} {lora}").advice


def _stem(name: str) -> str:
    return Path(name.replace("\\", "/")).stem
