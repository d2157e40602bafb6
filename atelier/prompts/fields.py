"""Prompt styles, and the usual parts of a portrait prompt in the order they are joined."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum

CLIP_BUDGET = 75
"""Prompt tokens that CLIP encodes at once: its 77 positions minus the start and end tokens."""


class PromptStyle(str, Enum):
    """How a prompt is worded."""

    TAGS = "tags"
    """Comma-separated words and short phrases: what SD1.5 and SD2 understand best."""
    SENTENCES = "sentences"
    """One or two plain sentences, which SDXL's larger text encoder follows."""
    FIELDS = "fields"
    """Each part of `PromptFields` is written separately, then all are joined by commas."""


@dataclass(frozen=True, kw_only=True)
class PromptFields:
    """The parts of a prompt that the user fixed; the writer may fill the empty ones."""

    medium: str = ""
    """Photograph, oil painting, pencil sketch, …"""
    subject: str = ""
    body: str = ""
    """Pose, clothes, build."""
    hair: str = ""
    face: str = ""
    lighting: str = ""
    resolution: str = ""
    """Words for sharpness and detail: "8k", "highly detailed"."""
    colours: str = ""

    @classmethod
    def names(cls) -> list[str]:
        """The parts, in the order they are joined."""
        return [field.name for field in fields(cls)]

    def given(self) -> dict[str, str]:
        """The parts that are filled in."""
        return {name: text for name in self.names() if (text := getattr(self, name).strip())}

    def joined(self) -> str:
        """The filled parts as one prompt."""
        return ", ".join(self.given().values())


NO_FIELDS = PromptFields()
"""Nothing is fixed by the user."""
