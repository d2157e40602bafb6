"""Shared by the nodes for comparisons: the folder of pictures, choices, and the request."""

from __future__ import annotations

from dataclasses import dataclass

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
