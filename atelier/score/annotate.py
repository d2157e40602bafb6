"""Write scores below pictures."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from ..pictures.labels import strip
from ..pictures.rgb import to_rgb
from .result import Score, Scores


def annotate(pictures: Sequence[Image.Image], scores: Scores) -> list[Image.Image]:
    """Each picture with its score and text in a strip below.

    Args:
        pictures: The scored pictures, in the same order.
        scores: Result of `ClipScorer.score` for them.
    """
    return [_with_strip(picture, score) for picture, score in zip(pictures, scores.items, strict=True)]


def _with_strip(picture: Image.Image, score: Score) -> Image.Image:
    width, height = picture.size
    # Fits two lines of a prompt, and limits the font size on large pictures.
    bar = strip(f"{score.value:.4f} · {score.text}", width, max(round(width * 0.1), 30), largest=max(width // 28, 12))
    out = Image.new("RGB", (width, height + bar.height))
    out.paste(to_rgb(picture), (0, 0))
    out.paste(bar, (0, height))
    return out
