"""Preprocess pictures for CLIP: small squares of normalised RGB."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from ..pictures.rgb import to_rgb
from .crop import ClipCrop

MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of red, green and blue over CLIP's training pictures (github.com/openai/CLIP, clip.py)."""
STD = (0.26862954, 0.26130258, 0.27577711)
"""Standard deviation of the same."""


def pixel_values(pictures: Sequence[Image.Image], size: int, crop: ClipCrop = ClipCrop.CENTER) -> torch.Tensor:
    """Pictures of any sizes as one input of CLIP's picture encoder.

    With `ClipCrop.CENTER` this is bit for bit what transformers' `CLIPImageProcessor` computes with Pillow: bicubic on
    8-bit levels, crop, scale to 0..1, normalise. Transparent parts show white.

    Args:
        size: The model's `image_size`, in pixels.

    Returns:
        Float32, `[B, 3, size, size]`.
    """
    squares = np.stack([np.asarray(_square(to_rgb(picture), size, crop)) for picture in pictures])
    levels = torch.from_numpy(squares).permute(0, 3, 1, 2).to(torch.float32) / 255  # BHWC -> BCHW
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (levels - mean) / std


def _square(picture: Image.Image, size: int, crop: ClipCrop) -> Image.Image:
    if crop is ClipCrop.SQUASH:
        return picture.resize((size, size), Image.Resampling.BICUBIC)
    width, height = picture.size
    side = min(width, height) if crop is ClipCrop.CENTER else max(width, height)
    # Rounded down as in transformers; a very elongated picture keeps at least one row of pixels.
    new = (max(int(size * width / side), 1), max(int(size * height / side), 1))
    picture = picture.resize(new, Image.Resampling.BICUBIC)
    left, top = (new[0] - size) // 2, (new[1] - size) // 2
    if crop is ClipCrop.CENTER:
        return picture.crop((left, top, left + size, top + size))
    square = Image.new("RGB", (size, size), tuple(round(255 * level) for level in MEAN))
    square.paste(picture, (-left, -top))
    return square
