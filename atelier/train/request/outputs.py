"""What a run writes beside its weights. None of it changes the weights, so none of it belongs to a run's identity,
except where the scores of sample pictures decide when training ends."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...errors import AtelierError
from ...lora.dtypes import DTYPES
from .checks import check_types, require, require_not_negative, require_one_of

MAX_STEPS = 1000
"""Denoising steps of a sample picture at most: a noise schedule has no more."""
LORA_FORMATS = ("kohya", "diffusers")
SAVE_DTYPES = tuple(DTYPES)
NO_SCORE = "none"
"""A score model that scores nothing."""
MOST_PICTURES = 64
"""Pictures of one round of samples at most."""


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Sample pictures drawn while training.

    Raises:
        AtelierError: a value is out of range or of another type; the message names the field.
    """

    sample_prompt: str = ""
    """Draw a picture of each of these prompts, one a line, now and then, and with the resulting LoRA at the end; empty:
    none."""
    sample_negative: str = ""
    """Negative prompt of the sample pictures."""
    sample_every: int = 0
    """Optimiser steps between sample pictures; 0: four times in the run."""
    sample_steps: int = 20
    """Denoising steps of a sample picture."""
    sample_cfg: float = 7.0
    """Classifier-free guidance scale of a sample picture."""
    sample_seeds: str = ""
    """Seeds, with commas: each prompt is drawn with each of them; empty: with the run's own seed."""
    score_model: str = NO_SCORE
    """Path of a CLIP model (`atelier.score`) that scores each round of samples, with the base model's as control, or
    "none"."""

    def __post_init__(self) -> None:
        check_types(self)
        require(len(self.prompts) * max(1, len(self._seeds)) <= MOST_PICTURES, "sample_prompt and sample_seeds",
                (len(self.prompts), len(self._seeds)), f"Choose fewer: {MOST_PICTURES} pictures a round are the most.")
        require(1 <= self.sample_steps <= MAX_STEPS, "sample_steps", self.sample_steps,
                f"Choose a number from 1 to {MAX_STEPS}.")
        require_not_negative(self, "sample_every", "sample_cfg")

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts, without empty lines."""
        return tuple(line.strip() for line in self.sample_prompt.splitlines() if line.strip())

    @property
    def scored(self) -> bool:
        """Whether sample pictures are drawn and scored."""
        return bool(self.prompts) and self.score_model != NO_SCORE

    def seeds(self, own: int) -> tuple[int, ...]:
        """The seeds of each prompt; `own` is the run's."""
        return self._seeds or (own,)

    @property
    def _seeds(self) -> tuple[int, ...]:
        parts = [part.strip() for part in re.split(r"[,\n]", self.sample_seeds) if part.strip()]
        try:
            seeds = tuple(map(int, parts))
        except ValueError as error:
            raise AtelierError(f"sample_seeds is {self.sample_seeds!r}.",
                               "Write whole numbers with commas, such as 1, 2, 3.") from error
        require(all(0 <= seed < 2**63 for seed in seeds), "sample_seeds", self.sample_seeds,
                "Choose whole numbers from 0 to 2^63 - 1.")
        require(len(set(seeds)) == len(seeds), "sample_seeds", self.sample_seeds, "Leave out the one that is twice.")
        return seeds


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
