"""Convert a picture's colours from its embedded profile (ICC.1:2022) to sRGB, as viewers show them.

Phones store Display P3, cameras and Photoshop often Adobe RGB. Their levels taken as sRGB look pale, and a model
trained on them learns pale pictures.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms, features

_log = logging.getLogger("atelier")

_SPACES = {"RGB": "RGB ", "CMYK": "CMYK", "L": "GRAY"}
"""Pillow's mode to the profile's colour space that describes it."""
_ALIKE = 2
"""Levels of 255: profiles of sRGB itself, of which there are many, differ by no more, and leave a picture as it is."""


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """A picture of mode RGB, CMYK or L as sRGB, mode RGB.

    Args:
        image: The picture.
        profile: Bytes of the ICC profile that it came with; may be empty.

    Returns:
        None where there is nothing to convert: no profile, a damaged one, one of another colour space, or sRGB.
    """
    transform = _transform(bytes(profile), image.mode) if profile and image.mode in _SPACES else None
    return None if transform is None else ImageCms.applyTransform(image, transform)


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    if not features.check("littlecms2"):
        _log.warning("This Pillow was built without LittleCMS: colour profiles of pictures are ignored.")
        return None
    try:
        source: Any = ImageCms.ImageCmsProfile(BytesIO(profile))
        if source.profile.xcolor_space != _SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        return None if _is_plain(transform, mode) else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        _log.warning("A damaged colour profile is ignored: %s", error)
        return None


def _is_plain(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether it changes no level by more than `_ALIKE`."""
    if mode == "CMYK":
        return False
    levels = np.arange(256, dtype=np.uint8)
    if mode == "RGB":
        steps = np.linspace(0, 255, 18).round().astype(np.uint8)
        levels = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 18, 3)
    else:
        levels = levels[None]
    picture = Image.fromarray(levels)
    changed = np.asarray(ImageCms.applyTransform(picture, transform), dtype=int)
    return int(np.abs(changed - np.asarray(picture.convert("RGB"), dtype=int)).max()) <= _ALIKE
