"""Join training sets, each with its own repeats, resolution and prior pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..errors import AtelierError
from .types import TrainingSet


def join(sets: Sequence[TrainingSet]) -> TrainingSet:
    """All samples of `sets`, in order; the first set's resolution is the joined set's, and samples of others keep
    theirs.

    Raises:
        AtelierError: no set, or sets that differ in flip or in their trigger words.
    """
    if not sets:
        raise AtelierError("There is no training set to join.", "Connect at least one.")
    first = sets[0]
    triggers = list(dict.fromkeys(data.trigger for data in sets if data.trigger))
    if len(triggers) > 1:
        raise AtelierError(f"The training sets have different triggers: {', '.join(map(repr, triggers))}.",
                           "Give them the same trigger, or only one of them any; words for further subjects can stand "
                           "in the captions.")
    if len({data.flip for data in sets}) > 1:
        raise AtelierError("Some training sets use mirrored pictures, and others do not.", "Set flip alike on each.")
    samples = tuple(replace(sample, resolution=None if (own := data.resolution_of(sample)) == first.resolution else own)
                    for data in sets for sample in data.samples)
    return TrainingSet(samples=samples, resolution=first.resolution, flip=first.flip, trigger="".join(triggers),
                       skipped=tuple(path for data in sets for path in data.skipped),
                       notes=tuple(dict.fromkeys(note for data in sets for note in data.notes)))
