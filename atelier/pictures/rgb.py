"""One rule for pictures of any mode as RGB: transparent parts show white, deep levels are scaled and not clipped, and
colours are those that viewers show.

Grids, scores and training sets share it, so a picture with an alpha channel looks and scores the same everywhere.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from .colour import to_srgb


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` in mode RGB: colours of an embedded profile converted to sRGB; alpha composited on white; 16-bit levels,
    and floats from 0 to 1, scaled to 8 bits."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(image)
    if not has_alpha(image):
        return _srgb(image, image)
    rgba = image.convert("RGBA")
    colours = _srgb(rgba.convert("RGB"), image)
    colours.putalpha(rgba.getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), colours).convert("RGB")


def _srgb(image: Image.Image, original: Image.Image) -> Image.Image:
    """An opaque picture in mode RGB, of sRGB by the profile of `original`."""
    profile = original.info.get("icc_profile") or b""
    plain = image if image.mode in ("RGB", "CMYK", "L") else image.convert("RGB")
    rgb = (to_srgb(plain, profile) if isinstance(profile, bytes) else None) or image.convert("RGB")
    rgb.info.pop("icc_profile", None)  # or it would be converted twice
    return rgb


def has_alpha(image: Image.Image) -> bool:
    """Whether some of its pixels may be transparent: by a channel, or by a colour that stands for it."""
    return image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or (
        "transparency" in image.info and image.mode in ("1", "L", "RGB", "P"))


def _from_deep(image: Image.Image) -> Image.Image:
    """8 bits from 16-bit integers (0..65535) or floats (0..1); Pillow's own conversion would clip at 255."""
    values = np.asarray(image, dtype=np.float64) * (255 if image.mode == "F" else 255 / 65535)
    grey = np.clip(np.nan_to_num(values), 0, 255).round().astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
