"""Find pictures that a training set would be better without: near-duplicates, blurred ones, tiny ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import AtelierError
from ..pictures.decode import read_picture, strict_decoding
from ..progress import Progress
from .parallel import in_order
from .sizing import fit
from .types import Sample, TrainingSet

SHARPNESS = 6.0
"""Standard deviation of the Laplacian, in grey levels, below which a picture counts as blurred."""
ENLARGED = 1.25
"""A picture that is enlarged by more than this to its training size counts as tiny."""

_MOST_BITS = 6
"""Bits of 64 in which two near-duplicates differ at most."""
_MOST_COLOUR = 10.0
"""Levels of 255 by which their colours differ at most, on average."""
_MEASURED = 512
"""Longest side in pixels of the copy that is measured for sharpness."""
_COLOURS = 8


class Fault(str, Enum):
    """What is wrong with a picture."""

    DUPLICATE = "duplicate"
    BLURRED = "blurred"
    TINY = "tiny"


@dataclass(frozen=True)
class FaultyPicture:
    """A picture, and what is wrong with it."""

    image: Path
    digest: str
    fault: Fault
    detail: str
    """For a person: of which other picture it is a copy, its sharpness, how much it is enlarged."""


@dataclass(frozen=True)
class _Traits:
    """What is compared of a picture."""

    bits: int
    colours: NDArray[np.int16]
    """[8, 8, 3], 0 to 255, flattened."""
    sharpness: float


def find_faults(data: TrainingSet, progress: Progress | None = None, *, sharpness: float = SHARPNESS,
                enlarged: float = ENLARGED) -> list[FaultyPicture]:
    """The faulty pictures of `data`, in its order; a picture may be listed for several faults. Prior pictures are not
    looked at, and a file that is used at several resolutions is no copy of itself.

    Args:
        data: The training set.
        progress: Shown progress, asked to stop.
        sharpness: Below this a picture is blurred; 0 finds none.
        enlarged: Above this factor a picture is tiny.

    Raises:
        AtelierError: a picture can no longer be read, or a limit is out of range.
    """
    if sharpness < 0 or enlarged < 1:
        raise AtelierError(f"sharpness is {sharpness:g} and enlarged {enlarged:g}.",
                           "Choose a sharpness from 0 on and a factor from 1 on.")
    progress = progress or Progress()
    samples = list({sample.image: sample for sample in data.samples if not sample.prior}.values())
    traits: list[_Traits] = []
    progress.phase("checking pictures", len(samples))
    with strict_decoding(), closing(in_order(lambda s: _traits(read_picture(s.image)), samples, ahead=16)) as results:
        for done, one in enumerate(results, 1):
            progress.check()
            traits.append(one)
            progress.advance(done)
    copies = _copies(samples, traits)
    found: list[FaultyPicture] = []
    for index, (sample, one) in enumerate(zip(samples, traits, strict=True)):
        scale = max(fit(sample.size, data.resolution_of(sample)).scale)
        faults = []
        if index in copies:
            faults.append((Fault.DUPLICATE, f"like {samples[copies[index]].image.name}"))
        if one.sharpness < sharpness:
            faults.append((Fault.BLURRED, f"sharpness {one.sharpness:.1f}"))
        if scale > enlarged:
            faults.append((Fault.TINY, f"enlarged {scale:.1f} times"))
        found += [FaultyPicture(sample.image, sample.digest, fault, detail) for fault, detail in faults]
    return found


def without(data: TrainingSet, found: Sequence[FaultyPicture], faults: Sequence[Fault]) -> TrainingSet:
    """`data` without the pictures that have one of `faults`.

    Raises:
        AtelierError: no picture would be left.
    """
    out = {each.image for each in found if each.fault in faults}
    samples = tuple(sample for sample in data.samples if sample.prior or sample.image not in out)
    if not any(not sample.prior for sample in samples):
        raise AtelierError(f"All {len(out)} pictures of the training set are faulty, and none would be left.",
                           "Leave out fewer kinds of faults, or lower the limits.")
    return replace(data, samples=samples) if out else data


def _traits(picture: Image.Image) -> _Traits:
    grey = picture.convert("L")
    small = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    darker = (small[:, :-1] < small[:, 1:]).flatten()
    colours = np.asarray(picture.resize((_COLOURS, _COLOURS), Image.Resampling.BOX), dtype=np.int16).flatten()
    return _Traits(int("".join("01"[int(bit)] for bit in darker), 2), colours, _sharpness(grey))


def _sharpness(grey: Image.Image) -> float:
    """Standard deviation of the Laplacian (4 neighbours minus 4 times the pixel) on a copy of at most 512 pixels."""
    if max(grey.size) > _MEASURED:
        grey = grey.copy()
        grey.thumbnail((_MEASURED, _MEASURED), Image.Resampling.LANCZOS)
    if min(grey.size) < 3:
        return 0.0
    values = np.asarray(grey, dtype=np.float64)
    laplacian = (values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * values[1:-1, 1:-1])
    return float(laplacian.std())


def _copies(samples: Sequence[Sample], traits: Sequence[_Traits]) -> dict[int, int]:
    """By number of each picture that is a near-duplicate: the number of the one that stays, which has most pixels."""
    bits = np.array([one.bits for one in traits], dtype=np.uint64)
    colours = np.array([one.colours for one in traits])
    order = sorted(range(len(samples)), key=lambda index: (-samples[index].size[0] * samples[index].size[1], index))
    copies: dict[int, int] = {}
    for place, index in enumerate(order):
        if index in copies:
            continue
        others = np.array(order[place + 1:], dtype=np.intp)
        others = others[_count_bits(bits[others] ^ bits[index]) <= _MOST_BITS]
        near = np.abs(colours[others] - colours[index]).mean(axis=1) <= _MOST_COLOUR if len(others) else []
        for other in others[near] if len(others) else []:
            copies.setdefault(int(other), index)
    return copies


def _count_bits(words: NDArray[np.uint64]) -> NDArray[np.intp]:
    return np.unpackbits(words.view(np.uint8).reshape(len(words), 8), axis=1).sum(axis=1, dtype=np.intp)
