"""The identity of a run: what decides its weights, and nothing else.

A run's folder is named by its identity, so that the same request finds its own finished result or the state to go on
from. What a run writes beside its weights (sample pictures, file format, saves) and how it saves memory do not count,
except for samples whose scores decide which weights are the best.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..dataset.types import TrainingSet
from .request.inpainting import InpaintingConfig
from .request.levels import LevelConfig
from .request.recipe import SCORES
from .request.request import TrainRequest
from .sample_settings import settings
from .warm_start import file_digest

if TYPE_CHECKING:
    import torch

    from .trainable import TrainableModel

_VERSION = "5"
"""Grows when training the same request would give other weights."""


@dataclass(frozen=True)
class RunIdentity:
    """Names a run. Two runs of one lineage differ in their length alone."""

    lineage: str
    """16 hex digits of everything but the length."""
    length: str
    """Such as "1200-steps" or "30-epochs"."""

    def __str__(self) -> str:
        return f"{self.lineage}-{self.length}"


def run_identity(request: TrainRequest, model: TrainableModel, data: TrainingSet, dtype: torch.dtype, *,
                 score_model: str = "") -> RunIdentity:
    """The identity of training `request` on `data`.

    Args:
        request: Its adapter, recipe, length and seed count.
        model: What it calls its identity counts: its weights, and what training takes from its configuration.
        data: Its content counts.
        dtype: The precision that the request and the device come to.
        score_model: Digest of the model that scores sample pictures. It and what they show count where their scores
            decide which weights are the best.
    """
    recipe = (request.lora, request.optimizer, request.loss, request.captions, request.validation)
    content = {"version": _VERSION, "recipe": [recipe_values(part) for part in recipe], "seed": request.seed,
               "precision": str(dtype), "training set": data.digest, **model.identity()}
    if request.levels != LevelConfig():  # runs from before there was a choice keep their names
        content["levels"] = recipe_values(request.levels)
    if request.inpainting != InpaintingConfig():
        content["inpainting"] = recipe_values(request.inpainting)
    if request.lora.init_lora:
        content["init lora"] = file_digest(Path(request.lora.init_lora))
    if request.validation.monitor in SCORES:
        content["samples"] = settings(request.samples, score_model)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return RunIdentity(digest[:16], f"{request.steps}-steps" if request.steps else f"{request.epochs}-epochs")


_LATER: dict[str, Any] = {
    "tag_dropout": 0.0, "optimizer_args": "", "lora_plus_ratio": 1.0, "schedule_cycles": 3, "schedule_power": 2.0,
    "loss": "mse", "huber_c": 0.1, "huber_schedule": "snr", "min_timestep": 0, "max_timestep": 1000,
    "rank_dropout": 0.0, "target_pattern": "", "rank_pattern": "", "lokr_factor": -1, "init_weights": "default",
    "preservation_class": "", "preservation_weight": 1.0}
"""Fields that came after runs had been named, with the value that trains as those did."""


def recipe_values(part: Any) -> dict[str, Any]:
    """The fields of a part of the recipe that count, by name. Of a file it is the content, not the path."""
    return {name: value for name, value in asdict(part).items()
            if name != "init_lora" and (name not in _LATER or value != _LATER[name])}
