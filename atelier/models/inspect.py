"""Describe a model file or folder without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..checkpoint.header import TORCH_NAMES
from .kinds import SamplerAdvice
from .layout import read_layout
from .noise_schedule import other_noise
from .open import unet_dtype
from .prediction import read_kind, read_prediction


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The description of a model."""

    path: Path
    family: str
    """Key of `families.FAMILIES`."""
    kind: str
    """Key of the kind in `families.KINDS`: "sd2-v", "sdxl-turbo", …"""
    name: str
    """The kind in words."""
    prediction_type: str
    prediction_because: str
    """What the prediction type was decided by."""
    zero_terminal_snr: bool
    dtype: str
    """Type of the UNet's weights, in torch's words."""
    parameters: int
    components: Mapping[str, int]
    """Parameters of each component by diffusers' folder names."""
    ema: bool
    """Whether an averaged copy of the UNet is stored besides."""
    unused: int
    """How many stored tensors no model reads."""
    advice: SamplerAdvice
    missing: str = ""
    """The parts that the family has and the file lacks, in words."""
    other_noise: str | None = None
    """The model whose noise it has, if that is not Stable Diffusion's: neither training nor folders know it."""

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return asdict(self) | {"path": str(self.path)}

    def text(self) -> str:
        """The same as lines for a person."""
        parts = ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in self.components.items())
        lines = [
            str(self.path),
            f"{self.name} (family {self.family})",
            f"Predicts {self.prediction_type} (by {self.prediction_because})"
            + (", zero terminal SNR" if self.zero_terminal_snr else ""),
            f"{self.parameters / 1e6:.1f} M parameters in {self.dtype}: {parts}",
            f"Sample with: {self.advice}" if self.other_noise is None else
            f"Its noise is that of {self.other_noise}: it can neither become a diffusers folder nor be trained. "
            "Load it with ComfyUI's own Load Checkpoint.",
        ]
        if self.missing:
            lines.append(f"It has no {self.missing}: load them from another file beside it")
        if self.unused:
            lines.append(f"{self.unused} stored tensors are read by no model"
                         + (", among them an averaged (EMA) UNet" if self.ema else ""))
        return "\n".join(lines)


def inspect(path: Path) -> Inspection:
    """Describe a checkpoint by its header, or a diffusers folder.

    Raises:
        AtelierError: it is no Stable Diffusion model; the message says what it looks like instead.
    """
    layout = read_layout(Path(path))
    prediction = read_prediction(layout)
    kind = read_kind(layout, prediction)
    return Inspection(
        path=layout.path, family=layout.family.key, kind=kind.key, name=kind.name, prediction_type=prediction.type,
        prediction_because=prediction.because, zero_terminal_snr=prediction.zero_terminal_snr,
        dtype=TORCH_NAMES[unet_dtype(layout)], parameters=layout.parameters,
        components={name: component.parameters for name, component in layout.components.items()}, ema=layout.ema,
        unused=len(layout.unused), advice=kind.advice, missing=layout.missing_words, other_noise=other_noise(layout))
