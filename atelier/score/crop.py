"""How a picture that is not square becomes one for CLIP."""

from __future__ import annotations

from enum import Enum


class ClipCrop(str, Enum):
    """What of a picture the model sees. It changes the score, so every result names it."""

    CENTER = "center"
    """The reference: shorter side to size, then the middle square. What lies outside does not count."""
    PAD = "pad"
    """Longer side to size, the rest filled with CLIP's mean colour. All of the picture counts."""
    SQUASH = "squash"
    """Both sides to size. All of the picture counts, its proportions do not."""
