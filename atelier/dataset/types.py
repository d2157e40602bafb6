"""The types that describe a training set."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from ..errors import AtelierError


class Crop(str, Enum):
    """How a picture is cropped or padded to its training size."""

    CENTER = "center"
    """The largest centred square."""
    FOCAL = "focal"
    """The largest square, at the position with the most detail."""
    PAD = "pad"
    """The whole picture in a square; the bars beside it are masked in the loss."""
    BUCKET = "bucket"
    """Keep the aspect ratio: each picture gets the nearest of a few sizes of nearly equal area."""


@dataclass(frozen=True)
class Resolution:
    """The size policy of a training set.

    Raises:
        AtelierError: a value is out of range; the message names the field.
    """

    size: int = 512
    """Pixels of a side; with buckets the square root of the area. A multiple of 8."""
    crop: Crop = Crop.CENTER
    bucket_step: int = 64
    """Bucket sides are multiples of this many pixels."""
    max_aspect: float = 2.0
    """Longest allowed side ratio of a bucket."""

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "crop", Crop(self.crop))  # also accepts the value, as config files give it
        except ValueError as error:
            raise AtelierError(f"crop is {self.crop!r}.", f"Choose {', '.join(c.value for c in Crop)}.") from error
        if self.size < 64 or self.size % 8:
            near = max(64, round(self.size / 8) * 8)
            raise AtelierError(f"resolution is {self.size} pixels a side.",
                               f"Choose a multiple of 8 from 64 on, such as {near}.")
        if self.bucket_step < 8 or self.bucket_step % 8 or self.bucket_step > self.size:
            raise AtelierError(f"bucket_step is {self.bucket_step}.",
                               f"Choose a multiple of 8 between 8 and size ({self.size}).")
        if not 1 <= self.max_aspect <= 8:
            raise AtelierError(f"max_aspect is {self.max_aspect}.", "Choose a ratio between 1 and 8.")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One picture of a training set."""

    image: Path
    captions: tuple[str, ...]
    """At least one; with several, each use of the picture takes one of them, in turn or at random."""
    digest: str
    """Hex digest of the file's bytes."""
    size: tuple[int, int]
    """(width, height) in pixels of the upright picture."""
    repeats: int = 1
    """How often the picture is used in one epoch."""
    mask: Path | None = None
    """Greyscale picture of the same shape: white counts in the loss, black does not."""
    mask_digest: str = ""
    """Hex digest of the mask file's bytes; empty without a mask."""
    prior: bool = False
    """True for a prior-preservation (regularisation) picture, which has its own loss weight."""
    resolution: Resolution | None = None
    """Its own size policy; None is that of the training set."""

    def __post_init__(self) -> None:
        if not self.captions:
            raise AtelierError(f"{self.image.name} has no caption.", "Give at least one; an empty text is allowed.")
        if any("\0" in caption for caption in self.captions):
            raise AtelierError(f"The caption of {self.image.name} holds a null character.", "Save it as UTF-8 text.")
        if self.repeats < 1:
            raise AtelierError(f"repeats of {self.image.name} is {self.repeats}.", "Choose a whole number above 0.")
        if (self.mask is None) != (not self.mask_digest):
            raise AtelierError(f"{self.image.name}: mask and mask_digest must come together.",
                               "Give both or neither.")


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Pictures with captions and their size policy. Immutable; equal content has an equal digest."""

    samples: tuple[Sample, ...]
    resolution: Resolution = Resolution()
    flip: bool = False
    """Mirror each picture left to right in half of its uses."""
    trigger: str = ""
    """The rare word the captions use for the new subject or style; recorded in the LoRA's metadata."""
    skipped: tuple[Path, ...] = ()
    """Files left out because they could not be read. Not part of the digest."""
    notes: tuple[str, ...] = ()
    """Sentences on what was assumed in reading, for a person. Not part of the digest."""

    def __post_init__(self) -> None:
        if not self.samples:
            raise AtelierError("The training set is empty.", "Choose a folder that holds pictures.")

    def resolution_of(self, sample: Sample) -> Resolution:
        """The size policy of one of the samples."""
        return sample.resolution or self.resolution

    @property
    def largest(self) -> int:
        """The largest size of any sample's policy, in pixels."""
        return max(self.resolution_of(sample).size for sample in self.samples)

    @property
    def digest(self) -> str:
        """Hex digest over pictures, captions and policy. Paths are excluded, so moving a folder does not change it."""
        parts: dict[str, Any] = {
            "samples": [(s.digest, s.captions, s.repeats, s.mask_digest, s.prior) for s in self.samples],
            "resolution": asdict(self.resolution), "flip": self.flip, "trigger": self.trigger,
        }
        own = [asdict(sample.resolution) if sample.resolution else None for sample in self.samples]
        if any(own):
            parts["resolutions"] = own
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
