"""The pictures and captions of a run, encoded with as much memory as there is."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from ..dataset.cache import EncodedItem, EncodedSet
from ..dataset.encode import encode
from ..dataset.types import TrainingSet
from ..errors import AtelierError
from ..models.handle import DiffusersModel
from ..progress import Monitor
from ..room import OutOfMemory, free, memory_errors_alike
from .config import TrainingOptions
from .place import Workplace

log = logging.getLogger("atelier")

ENCODING_BATCH = 4
"""Pictures of 512 pixels that the VAE encodes at once, about 0.7 GB each in float32; of larger ones fewer."""


def encode_in_room(data: TrainingSet, model: DiffusersModel, options: TrainingOptions, place: Workplace, *,
                   device: torch.device, dtype: torch.dtype, monitor: Monitor) -> EncodedSet:
    """`data` encoded by `model`, with fewer pictures at a time where memory runs out.

    Raises:
        AtelierError: there is no memory for one picture; else as `encode`.
    """
    batch = min(ENCODING_BATCH, max(1, ENCODING_BATCH * 512**2 // data.resolution.size**2))
    while True:
        try:
            with memory_errors_alike():
                return encode(data, model, place.cache, device=device, dtype=dtype, batch_size=batch, monitor=monitor,
                              variants=options.caption_variants, keep_tokens=options.keep_tokens)
        except OutOfMemory as error:
            if batch == 1:
                raise AtelierError("Memory ran out while encoding pictures and captions, one picture at a time.",
                                   "Choose a smaller resolution, or close other programs that use the device."
                                   ) from error
        free(device)  # only here: while the error was being handled, it held what had been computed
        batch //= 2
        log.info("Memory ran out while encoding; going on with %d at a time.", batch)


def check_masks(items: Sequence[EncodedItem], encoded: EncodedSet) -> None:
    """Refuse `items` of which the loss masks leave nothing to learn.

    Raises:
        AtelierError: all of them hide everything.
    """
    if all(mask is not None and not mask.any() for mask in (encoded.mask(item.index, False) for item in items)):
        raise AtelierError(f"The loss masks hide all of the {len(items)} pictures: there is nothing to learn.",
                           "Paint white in the masks what counts, or train without masks.")
