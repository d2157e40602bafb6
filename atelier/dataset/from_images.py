"""Build a training set from pictures in memory, such as a graph's `IMAGE` batches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..errors import AtelierError
from ..files import atomic_file
from ..pictures.decode import as_rgb
from .captions import with_trigger
from .sample import make_sample
from .types import Resolution, Sample, TrainingSet


def from_images(images: Sequence[Image.Image], captions: Sequence[str], folder: Path, *,
                resolution: Resolution | None = None, repeats: int = 1, flip: bool = False,
                trigger: str = "") -> TrainingSet:
    """Write `images` into `folder` and make a training set of the files.

    A file is named by its pixels (`<digest>.png`), so the same picture is written only once.

    Args:
        images: Pictures of any mode.
        captions: One for each picture, or a single one for all.
        folder: Destination; created if it does not exist.
        resolution: The size policy.
        repeats: Uses of each picture in an epoch.
        flip: Also use the pictures mirrored.
        trigger: Prepended to captions that lack it.

    Raises:
        AtelierError: no picture, or the number of captions does not match.
    """
    if len(captions) not in (1, len(images)):
        raise AtelierError(f"{len(captions)} captions were given for {len(images)} pictures.",
                           "Give one caption for all, or one for each picture.")
    texts = captions if len(captions) == len(images) else list(captions) * len(images)
    samples: list[Sample] = []
    for image, text in zip(images, texts, strict=True):
        rgb = as_rgb(image, folder / f"picture {len(samples) + 1}")
        path = folder / f"{_pixel_digest(rgb)}.png"
        if not path.exists():
            with atomic_file(path) as part:
                rgb.save(part, format="PNG", compress_level=1)
        samples.append(make_sample(path, (with_trigger(text.strip(), trigger),), repeats=repeats))
    return TrainingSet(samples=tuple(samples), resolution=resolution or Resolution(), flip=flip, trigger=trigger)


def _pixel_digest(image: Image.Image) -> str:
    shape = f"{image.width} {image.height} ".encode()
    return hashlib.sha256(shape + image.tobytes()).hexdigest()[:32]
