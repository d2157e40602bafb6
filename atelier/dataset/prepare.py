"""One sample made ready for the VAE: decoded, cut, resized, with its loss mask."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageStat

from ..pictures.decode import UnreadablePicture, decode_mask, decode_picture, read_file
from .sizing import Geometry, find_focus, fit
from .types import Crop, Resolution, Sample


@dataclass(frozen=True)
class Prepared:
    """Pixels at the training size."""

    geometry: Geometry
    pixels: NDArray[np.uint8]
    """[H, W, 3], RGB."""
    mask: NDArray[np.uint8] | None
    """[H, W], 255 where the loss counts in full; None where it counts everywhere."""


def prepare(sample: Sample, resolution: Resolution) -> Prepared:
    """Decode `sample` and bring it to its training size in one resampling (Lanczos, antialiased).

    Bars beside a padded picture take its mean colour, which disturbs the VAE's neighbourhood least, and are masked.

    Raises:
        UnreadablePicture: the picture or its mask cannot be used, or is no longer the file that the sample was made of.
    """
    picture = decode_picture(sample.image, _unchanged(sample.image, sample.digest))
    geometry = fit_sample(picture, resolution)
    pixels = np.asarray(_on_canvas(picture, geometry, Image.Resampling.LANCZOS, _mean_colour(picture)))
    return Prepared(geometry, pixels, _mask(sample, geometry))


def fit_sample(picture: Image.Image, resolution: Resolution) -> Geometry:
    """Where the decoded picture goes, its focus found in its pixels when the policy asks for that."""
    focus = find_focus(picture) if resolution.crop is Crop.FOCAL else 0.5
    return fit(picture.size, resolution, focus)


def _mask(sample: Sample, geometry: Geometry) -> NDArray[np.uint8] | None:
    if sample.mask is not None:
        mask = decode_mask(sample.mask, _unchanged(sample.mask, sample.mask_digest))
    elif geometry.padded:
        mask = Image.new("L", geometry.source, 255)
    else:
        return None
    # Box: no ringing, so a mask of black and white never leaves 0..255 or gets a halo.
    return np.asarray(_on_canvas(mask, geometry, Image.Resampling.BOX, 0))


def _unchanged(path: Path, digest: str) -> bytes:
    """The file's bytes; encoding others under the old digest would spoil the cache for good."""
    data = read_file(path)
    if hashlib.sha256(data).hexdigest() != digest:
        raise UnreadablePicture(path, "it has changed since the training set was read")
    return data


def _on_canvas(image: Image.Image, geometry: Geometry, filter_: Image.Resampling,
               fill: int | tuple[int, int, int]) -> Image.Image:
    left, top, right, bottom = geometry.inner
    resized = image.resize((right - left, bottom - top), filter_, box=geometry.box)
    if not geometry.padded:
        return resized
    canvas = Image.new(image.mode, geometry.target, fill)
    canvas.paste(resized, (left, top))
    return canvas


def _mean_colour(picture: Image.Image) -> tuple[int, int, int]:
    red, green, blue = ImageStat.Stat(picture).mean
    return round(red), round(green), round(blue)
