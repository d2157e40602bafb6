"""Preprocess pictures for CLIP: small squares of normalised RGB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from ..pictures.rgb import to_rgb
from .crop import ClipCrop

MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of red, green and blue over CLIP's training pictures (github.com/openai/CLIP, clip.py)."""
STD = (0.26862954, 0.26130258, 0.27577711)
"""Standard deviation of the same."""


@dataclass(frozen=True)
class Levels:
    """How a model's pictures are resized and normalised; the defaults are CLIP's."""

    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    resample: Image.Resampling = Image.Resampling.BICUBIC


CLIP_LEVELS = Levels()


def pixel_values(pictures: Sequence[Image.Image], size: int, crop: ClipCrop = ClipCrop.CENTER,
                 levels: Levels = CLIP_LEVELS) -> torch.Tensor:
    """Pictures of any sizes as one input of a picture encoder.

    With `ClipCrop.CENTER` this is bit for bit what transformers' `CLIPImageProcessor` computes with Pillow: bicubic on
    8-bit levels, crop, scale to 0..1, normalise. Transparent parts show white.

    Args:
        size: The model's `image_size`, in pixels.
        crop: How they are made square.
        levels: The model's own filter, mean and deviation.

    Returns:
        Float32, `[B, 3, size, size]`.
    """
    squares = np.stack([np.asarray(square(to_rgb(picture), size, crop, levels)) for picture in pictures])
    scaled = torch.from_numpy(squares).permute(0, 3, 1, 2).to(torch.float32) / 255  # BHWC -> BCHW
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (levels.mean, levels.std))
    return (scaled - mean) / std


def square(picture: Image.Image, size: int, crop: ClipCrop, levels: Levels = CLIP_LEVELS) -> Image.Image:
    """An RGB picture as `size` × `size` pixels."""
    if crop is ClipCrop.SQUASH:
        return picture.resize((size, size), levels.resample)
    width, height = picture.size
    side = min(width, height) if crop is ClipCrop.CENTER else max(width, height)
    # Rounded down as in transformers; a very elongated picture keeps at least one row of pixels.
    new = (max(int(size * width / side), 1), max(int(size * height / side), 1))
    picture = picture.resize(new, levels.resample)
    left, top = (new[0] - size) // 2, (new[1] - size) // 2
    if crop is ClipCrop.CENTER:
        return picture.crop((left, top, left + size, top + size))
    square = Image.new("RGB", (size, size), tuple(round(255 * level) for level in levels.mean))
    square.paste(picture, (-left, -top))
    return square
