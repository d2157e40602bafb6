"""The geometry of a training picture: which part of it is used, and at which size.

Three coordinate systems: *source* pixels of the upright picture, *resized* pixels after scaling, and the *target*
canvas of the training size. All is arithmetic on these; only `find_focus` looks at pixels. Sizes are
(width, height), boxes (left, top, right, bottom).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .types import Crop, Resolution

Size = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """How one picture is brought onto its training canvas."""

    source: Size
    target: Size
    """Size of the canvas, which is what the VAE encodes."""
    box: tuple[float, float, float, float]
    """The part of the source that is used, in source pixels; fractions keep the aspect ratio exact."""
    inner: tuple[int, int, int, int]
    """Where that part lands on the canvas; smaller than the canvas only when padded."""

    @property
    def padded(self) -> bool:
        """True when part of the canvas holds no picture."""
        return self.inner != (0, 0, *self.target)

    @property
    def scale(self) -> tuple[float, float]:
        """Canvas pixels per source pixel, horizontally and vertically. Above 1 the picture is enlarged."""
        left, top, right, bottom = self.box
        return (self.inner[2] - self.inner[0]) / (right - left), (self.inner[3] - self.inner[1]) / (bottom - top)

    def time_ids(self, flip: bool = False) -> tuple[int, int, int, int, int, int]:
        """SDXL's micro-conditioning (https://arxiv.org/abs/2307.01952, section 2.2).

        Original height and width in source pixels; top and left of the crop in resized pixels; target height and
        width. A mirrored picture counts its left edge from what was the right one.
        """
        width, height = self.source
        left, top, right, _ = self.box
        across, down = self.scale
        cut = width - right if flip else left
        return height, width, round(top * down), round(cut * across), self.target[1], self.target[0]


def buckets(resolution: Resolution) -> tuple[Size, ...]:
    """The sizes of bucket mode, sorted by width.

    For every width that is a multiple of `bucket_step`, the multiple nearest to size² / width is its height. Sizes
    whose ratio is above `max_aspect` or whose area is more than a quarter off (that happens when the step is coarse)
    are left out. With (w, h) there is always (h, w), and the square nearest to `size` is always there.
    """
    step, area = resolution.bucket_step, resolution.size ** 2
    side = max(1, _nearest(resolution.size, step)) * step
    found = {(side, side)}
    for width in range(step, math.ceil(resolution.size * math.sqrt(resolution.max_aspect)) + step, step):
        height = _nearest(area / width, step) * step
        if (max(width, height) <= resolution.max_aspect * min(width, height)
                and abs(width * height - area) <= area / 4):
            found |= {(width, height), (height, width)}
    return tuple(sorted(found))


def target_size(source: Size, resolution: Resolution) -> Size:
    """The training size of a picture: the square, or the bucket whose aspect ratio is nearest in logarithm."""
    if resolution.crop is not Crop.BUCKET:
        return resolution.size, resolution.size
    aspect = math.log(source[0] / source[1])
    # Rounded, so that a tie is a tie on every machine; it goes to the smaller area, then to the order of the list.
    return min(buckets(resolution),
               key=lambda size: (round(abs(math.log(size[0] / size[1]) - aspect), 9), size[0] * size[1]))


def fit(source: Size, resolution: Resolution, focus: float = 0.5) -> Geometry:
    """Where a picture of `source` size goes.

    Args:
        source: (width, height) of the upright picture.
        resolution: The policy.
        focus: With `Crop.FOCAL`, the place of the window along the longer side, 0 (left or top) to 1, as `find_focus`
            finds it. Other policies cut both ends alike.
    """
    target = target_size(source, resolution)
    if resolution.crop is Crop.PAD:
        return _padded(source, target)
    width, height = source
    scale = max(target[0] / width, target[1] / height)
    used = min(float(width), target[0] / scale), min(float(height), target[1] / scale)
    along = focus if resolution.crop is Crop.FOCAL else 0.5
    left, top = (width - used[0]) * along, (height - used[1]) * along
    box = left, top, min(width, left + used[0]), min(height, top + used[1])  # rounding may not step over the edge
    return Geometry(source, target, box, (0, 0, *target))


def find_focus(image: Image.Image, longest: int = 256) -> float:
    """The place of the square window with the most detail along the longer side, from 0 to 1.

    Detail is the energy of the gradient: the sum of squared differences between neighbouring grey values, taken on
    a copy of about `longest` pixels. Integers throughout, so the answer is the same everywhere. Among equal windows
    the one nearest to the middle wins; a picture without any detail gives 0.5.
    """
    factor = max(1, max(image.size) // longest)
    grey = np.asarray(image.convert("L").reduce(factor), dtype=np.int64)
    energy = np.zeros_like(grey)
    energy[:, 1:] += np.diff(grey, axis=1) ** 2
    energy[1:, :] += np.diff(grey, axis=0) ** 2
    height, width = grey.shape
    profile = energy.sum(axis=0 if width >= height else 1)
    window, free = min(width, height), abs(width - height)
    if free == 0:
        return 0.5
    total = np.concatenate(([0], np.cumsum(profile)))
    inside = total[window:] - total[:-window]
    best = np.flatnonzero(inside == inside.max())
    start = best[np.argmin(np.abs(2 * best - free))]
    return float(start) / free


def _padded(source: Size, target: Size) -> Geometry:
    scale = min(target[0] / source[0], target[1] / source[1])
    width, height = (max(1, min(side, round(length * scale))) for side, length in zip(target, source, strict=True))
    left, top = (target[0] - width) // 2, (target[1] - height) // 2
    return Geometry(source, target, (0.0, 0.0, float(source[0]), float(source[1])),
                     (left, top, left + width, top + height))


def _nearest(length: float, step: int) -> int:
    """How many steps come nearest to `length`; halves round up, unlike Python's `round`."""
    return math.floor(length / step + 0.5)
