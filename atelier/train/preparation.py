"""What is prepared before the first step: pictures and captions encoded with as much memory as there is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from ..dataset.cache import EncodedItem, EncodedSet
from ..dataset.encode import encode, encode_share
from ..dataset.types import TrainingSet
from ..device_memory import OutOfMemory, free_cache, unify_memory_errors
from ..errors import AtelierError
from ..models.handle import DiffusersModel
from ..models.text import TextStack
from ..models.tokenizer import LENGTH
from ..progress import Progress
from .devices import RunPaths
from .joint_run import sharers
from .processes import Processes
from .request.recipe import CaptionConfig

_FIT = LENGTH - 2
"""Tokens between start and end."""


def cut_captions(data: TrainingSet, text: TextStack) -> str:
    """A sentence on the pictures whose captions are cut in training; empty where all fit.

    Args:
        data: Pictures and captions.
        text: Its tokenizers count; encoders are not used.
    """
    lengths = {caption: sum(text.count(caption)) for sample in data.samples for caption in sample.captions
               if len(caption.encode()) > _FIT}  # a token is at least a byte
    cut = [(sample, longest) for sample in data.samples
           if (longest := max(lengths.get(caption, 0) for caption in sample.captions)) > _FIT]
    if not cut:
        return ""
    (first, tokens), many = cut[0], len(cut)
    return (f"{many} of {len(data.samples)} pictures {'has a caption' if many == 1 else 'have captions'} of more than "
            f"{_FIT} tokens; the text encoder takes no more, and the rest is not learnt "
            f"(first: {first.image.name}, {tokens} tokens).")


T = TypeVar("T")

log = logging.getLogger("atelier")

ENCODING_BATCH = 4
"""Pictures of 512 pixels that the VAE encodes at once, about 0.7 GB each in float32; of larger ones fewer."""


def encode_in_room(data: TrainingSet, model: DiffusersModel, options: CaptionConfig, place: RunPaths,
                   processes: Processes, *, device: torch.device, dtype: torch.dtype, progress: Progress,
                   inpaint_masks: int) -> EncodedSet:
    """Encode `data` with `model`, with a smaller batch size each time memory runs out.

    Processes that share the cache's folder share out the batches. What then is still not seen, as for a while on a disk
    over a network, each encodes for itself.

    Raises:
        AtelierError: there is no memory for one picture; else as `encode`.
    """
    how: Any = dict(device=device, dtype=dtype, progress=progress, variants=options.caption_variants,
               keep_tokens=options.keep_tokens, tag_dropout=options.tag_dropout, class_word=options.preservation_class,
               inpaint_masks=inpaint_masks)
    if processes.count > 1:
        share = sharers(place.cache, processes)
        with processes.together():
            _in_room(data, device, lambda batch: encode_share(data, model, place.cache, share, batch_size=batch, **how))
    with processes.together():
        return _in_room(data, device, lambda batch: encode(data, model, place.cache, batch_size=batch, **how))


def _in_room(data: TrainingSet, device: torch.device, encode_by: Callable[[int], T]) -> T:
    """What `encode_by` returns for a batch size for which there is memory."""
    batch = min(ENCODING_BATCH, max(1, ENCODING_BATCH * 512**2 // data.largest**2))
    while True:
        try:
            with unify_memory_errors():
                return encode_by(batch)
        except OutOfMemory as error:
            if batch == 1:
                raise AtelierError("Memory ran out while encoding pictures and captions, one picture at a time.",
                                   "Choose a smaller resolution, or close other programs that use the device."
                                   ) from error
        free_cache(device)  # only here: while the error was being handled, it held what had been computed
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
