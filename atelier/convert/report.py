"""The report of a conversion, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..models.kinds import SamplerAdvice


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """The result of `to_folder` or `to_checkpoint`."""

    source: Path
    destination: Path
    family: str
    """Key of `families.FAMILIES`."""
    name: str
    """The kind of model in words."""
    prediction_type: str
    prediction_because: str
    """What the prediction type was decided by."""
    dtype: str
    """Type of the written weights, in torch's words."""
    parameters: int
    tensors: int
    """How many were written."""
    dropped: tuple[str, ...]
    """Names of stored tensors that were left out."""
    bytes: int
    """Size of the written weights."""
    seconds: float
    advice: SamplerAdvice
    notes: tuple[str, ...] = ()
    """What the person should know besides."""

    def text(self) -> str:
        """The report as lines for a person."""
        lines = [
            f"{self.source.name} -> {self.destination}",
            f"{self.name}, {self.parameters / 1e6:.1f} M parameters in {self.dtype}, {self.tensors} tensors",
            f"Predicts {self.prediction_type} (by {self.prediction_because})",
            f"{self.bytes / 1e6:.0f} MB in {self.seconds:.1f} s",
            f"Sample with: {self.advice}",
        ]
        if self.dropped:
            lines.append(f"Left out {len(self.dropped)} tensors that no model reads, such as {self.dropped[0]}")
        return "\n".join([*lines, *self.notes])
