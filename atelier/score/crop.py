"""How non-square pictures are made square for CLIP."""

from __future__ import annotations

from enum import Enum


class ClipCrop(str, Enum):
    """How a picture is made square. It affects the score, so every result records it."""

    CENTER = "center"
    """Resize the shorter side and crop the centre square, as in CLIP's reference code. The rest is ignored."""
    PAD = "pad"
    """Resize the longer side and pad with CLIP's mean colour. The whole picture counts."""
    SQUASH = "squash"
    """Resize both sides. The whole picture counts; its aspect ratio is lost."""
