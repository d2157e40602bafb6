"""What a run writes beside its weights. None of it changes the weights, so none of it belongs to a run's identity."""

from __future__ import annotations

from dataclasses import dataclass

from ...lora.dtypes import DTYPES
from .checks import check_types, require, require_not_negative, require_one_of

MAX_STEPS = 1000
"""Denoising steps of a sample picture at most: a noise schedule has no more."""
LORA_FORMATS = ("kohya", "diffusers")
SAVE_DTYPES = tuple(DTYPES)


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Sample pictures drawn while training.

    Raises:
        AtelierError: a value is out of range or of another type; the message names the field.
    """

    sample_prompt: str = ""
    """Draw a picture of this prompt now and then, and one with the resulting LoRA at the end; empty: none."""
    sample_negative: str = ""
    """Negative prompt of the sample pictures."""
    sample_every: int = 0
    """Optimiser steps between sample pictures; 0: four times in the run."""
    sample_steps: int = 20
    """Denoising steps of a sample picture."""
    sample_cfg: float = 7.0
    """Classifier-free guidance scale of a sample picture."""

    def __post_init__(self) -> None:
        check_types(self)
        require(1 <= self.sample_steps <= MAX_STEPS, "sample_steps", self.sample_steps,
                f"Choose a number from 1 to {MAX_STEPS}.")
        require_not_negative(self, "sample_every", "sample_cfg")


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """The LoRA files of a run.

    Raises:
        AtelierError: a value is out of range or of another type; the message names the field.
    """

    lora_format: str = "kohya"
    """Keys of the published file: "kohya" (ComfyUI, A1111, Forge) or "diffusers"."""
    save_dtype: str = "fp32"
    """Storage type of the published file: "fp32", "fp16" or "bf16"."""
    save_every: int = 0
    """Also keep a LoRA file every so many optimiser steps; 0: only best and last."""

    def __post_init__(self) -> None:
        check_types(self)
        require_one_of(self, "lora_format", LORA_FORMATS)
        require_one_of(self, "save_dtype", SAVE_DTYPES)
        require_not_negative(self, "save_every")
