"""One rule for pictures of any mode as RGB: transparent parts show white, deep levels are scaled and not clipped.

Grids, scores and training sets share it, so a picture with an alpha channel looks and scores the same everywhere.
"""

from __future__ import annotations

import numpy as np
from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` in mode RGB: alpha composited on white; 16-bit levels and floats from 0 to 1 scaled to 8 bits."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(image)
    if not has_alpha(image):
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def has_alpha(image: Image.Image) -> bool:
    """Whether some of its pixels may be transparent: by a channel, or by a colour that stands for it."""
    return image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or (
        "transparency" in image.info and image.mode in ("1", "L", "RGB", "P"))


def _from_deep(image: Image.Image) -> Image.Image:
    """8 bits from 16-bit integers (0..65535) or floats (0..1); Pillow's own conversion would clip at 255."""
    values = np.asarray(image, dtype=np.float64) * (255 if image.mode == "F" else 255 / 65535)
    grey = np.clip(np.nan_to_num(values), 0, 255).round().astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
