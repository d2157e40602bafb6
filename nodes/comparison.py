"""Shared by the nodes for comparisons: the folder of pictures, choices, and the request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .host import folders
from .host.peak_memory import compute_environment

if TYPE_CHECKING:
    from ..atelier.compare.compared_model import ComparedModel

NO_LORA, NO_SCORE = "none", "none"

FOLDER = "comparisons"
"""Below the pack's work folder; holds a picture and its measurements for each key."""

PART_DESCRIPTION = "A part of Compare Models, which places it by itself."


@dataclass(frozen=True)
class ComparisonRequest:
    """What to draw with every model."""

    prompts: tuple[str, ...]
    negative: str
    seeds: tuple[int, ...]
    size: tuple[int, int]
    """Width and height in pixels."""


def file_states(model: ComparedModel) -> list[str]:
    """Strings that change with the model's files or with the environment that computes the pictures."""
    files = [("checkpoints", model.checkpoint), *([("loras", model.lora)] if model.tuned else [])]
    return [*(folders.disk_state(folders.model_path(kind, name)) for kind, name in files), compute_environment()]
