"""Labels beside rows of pictures, readable however tall the pictures are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..score.label import font_size, strip

if TYPE_CHECKING:
    from PIL.Image import Image

_TALLEST = 112
"""Pixels of a label's own height; a taller strip would keep wider margins and leave no room for words."""


def beside(text: str, width: int, height: int, largest: int) -> Image:
    """`text` in the middle of a white area of `width` × `height` pixels, in letters of at most `largest` pixels."""
    from PIL import Image

    out = Image.new("RGB", (width, height), (255, 255, 255))
    words = strip(text, width, min(height, _TALLEST), largest=largest)
    out.paste(words, (0, (height - words.height) // 2))
    return out


def size_beside(text: str, width: int, height: int) -> int:
    """The font size in pixels that `beside` would choose without a limit."""
    return font_size(text, width, min(height, _TALLEST))
