"""Encode a training set once: pictures to latents and captions to embeddings, cached on disk by content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch

from ..device_memory import free_cache
from ..errors import AtelierError
from ..models import load
from ..models.handle import DiffusersModel
from ..pictures.decode import strict_decoding
from ..progress import Progress
from .cache import Cache, EncodedSet, latent_key, text_key
from .captions import class_captions, with_variants
from .encoders import CaptionEncoder, LatentEncoder, PictureEncoder, TextEncoder, finite
from .parallel import in_order
from .prepare import prepare
from .sizing import target_size
from .store import PackStore, Row
from .types import Sample, TrainingSet

T = TypeVar("T")

Share = tuple[int, int]
"""(number from 0, how many there are)."""

TEXT_BATCH = 32
"""Captions per forward pass; they are all 77 tokens long, so a batch wastes nothing."""


@dataclass(frozen=True)
class Encoders:
    """What encodes for a model. Each part is loaded only where something is missing, and let go before the next."""

    pictures: Callable[[], PictureEncoder]
    captions: Callable[[], CaptionEncoder]


def encode(data: TrainingSet, model: DiffusersModel, cache: Path, *, device: torch.device | str, dtype: torch.dtype,
           batch_size: int, progress: Progress, variants: int = 1, keep_tokens: int = 0,
           tag_dropout: float = 0.0, class_word: str = "", inpaint_masks: int = 0) -> EncodedSet:
    """Encode the part of `data` that the folder `cache` lacks with a model on disk, and return the encoded set.

    Args:
        data: Pictures and captions.
        model: Provides the VAE and the text encoders.
        cache: Folder of the cache; many models and training sets may share it.
        device: Device to compute on.
        dtype: Precision to compute in. A VAE that overflows in half precision continues in float32.
        batch_size: Pictures per forward pass.
        progress: Reports the phase "encoding"; may interrupt between batches.
        variants: As `encode_with`.
        keep_tokens: As `encode_with`.
        tag_dropout: As `encode_with`.
        class_word: As `encode_with`.
        inpaint_masks: Random masks of each picture, for an inpainting model; 0 for others.

    Raises:
        AtelierError: a picture cannot be read or gives latents that are not finite; the message names it.
    """
    device = torch.device(device)
    return encode_with(_encoders(model, device, dtype, inpaint_masks), data,
                       Cache.open(cache, model, device, dtype, inpaint_masks), device=device, batch_size=batch_size,
                       progress=progress, variants=variants, keep_tokens=keep_tokens, tag_dropout=tag_dropout,
                       class_word=class_word)


def encode_share(data: TrainingSet, model: DiffusersModel, cache: Path, share: Share, *, device: torch.device,
                 dtype: torch.dtype, batch_size: int, progress: Progress, variants: int = 1, keep_tokens: int = 0,
                 tag_dropout: float = 0.0, class_word: str = "", inpaint_masks: int = 0) -> None:
    """Encode one of several shares of what the folder `cache` lacks. `encode` finds all of them there later.

    Args and errors: as `encode`; `share` says which, of how many.
    """
    data = with_variants(data, variants, keep_tokens, seed=0, tag_dropout=tag_dropout)
    _fill(_encoders(model, device, dtype, inpaint_masks), data,
          Cache.open(cache, model, device, dtype, inpaint_masks), device=device, batch_size=batch_size,
          progress=progress, class_word=class_word, share=share)


def _encoders(model: DiffusersModel, device: torch.device, dtype: torch.dtype, inpaint_masks: int) -> Encoders:
    return Encoders(lambda: LatentEncoder(model, load.load_vae(model, dtype=dtype, device=device), device,
                                          inpaint_masks),
                    lambda: TextEncoder(load.load_text(model, dtype=dtype, device=device)))


def encode_with(encoders: Encoders, data: TrainingSet, store: Cache, *, device: torch.device, batch_size: int,
                progress: Progress, variants: int, keep_tokens: int, tag_dropout: float, class_word: str
                ) -> EncodedSet:
    """Encode the part of `data` that `store` lacks, and return the encoded set.

    Each batch is written at once: an interrupted or killed run loses at most one. Batches are formed over the whole
    set, not over its missing part, so that a resumed run gives the same bits as an uninterrupted one.

    Args:
        encoders: The model's.
        data: Pictures and captions.
        store: The model's rows.
        device: Where is computed; its cached memory is freed after each encoder.
        batch_size: Pictures per forward pass.
        progress: Reports the phase "encoding"; may interrupt between batches.
        variants: Orders of each comma-separated caption to encode, the original included (see `captions.variants`).
        keep_tokens: Leading parts of a caption that stay in place in all of them.
        tag_dropout: Probability that another part is left out of a variant.
        class_word: Captions are encoded with this word in the trigger's place as well; empty: they are not.

    Raises:
        AtelierError: a picture cannot be read or gives latents that are not finite; the message names it.
    """
    data = with_variants(data, variants, keep_tokens, seed=0, tag_dropout=tag_dropout)
    _fill(encoders, data, store, device=device, batch_size=batch_size, progress=progress, class_word=class_word)
    return EncodedSet(data, store, class_word)


def _fill(encoders: Encoders, data: TrainingSet, store: Cache, *, device: torch.device, batch_size: int,
          progress: Progress, class_word: str, share: Share = (0, 1)) -> None:
    """Add to `store` what it lacks of `data`, which has its caption variants: a share of the batches."""
    number, shares = share
    pictures = _missing_pictures(data, store.latents, batch_size)[number::shares]
    captions = _missing_captions(data, store.texts, class_word)[number::shares]
    counted = _Progress(progress, sum(map(len, pictures)) + sum(map(len, captions)))
    if pictures:
        encode_pictures(pictures, data, encoders.pictures(), store.latents,
                        counted.of("pictures", sum(map(len, pictures))))
        free_cache(device)
    if captions:
        encode_captions(captions, encoders.captions(), store.texts, counted.of("captions", sum(map(len, captions))))
        free_cache(device)


@torch.no_grad()
def encode_pictures(batches: Sequence[Sequence[Sample]], data: TrainingSet, encoder: PictureEncoder, store: PackStore,
                    advance: Callable[[int], None]) -> None:
    """Encode each batch of same-sized pictures, also mirrored if `data.flip`, and add it to `store`.

    Threads decode the next pictures while the VAE computes.
    """
    flips = (False, True) if data.flip else (False,)
    samples = [sample for batch in batches for sample in batch]
    ahead = 2 * max(map(len, batches))
    with strict_decoding(), closing(in_order(lambda s: prepare(s, data.resolution_of(s)), samples, ahead)) as prepared:
        for batch in batches:
            advance(0)
            together = list(zip(batch, islice(prepared, len(batch)), strict=True))
            rows: dict[str, Row] = {}
            for flip in flips:
                missing = [(sample, picture) for sample, picture in together
                           if latent_key(sample, data.resolution_of(sample), flip) not in store]
                if missing:
                    encoded = encoder([sample for sample, _ in missing], [picture for _, picture in missing], flip)
                    rows |= {latent_key(sample, data.resolution_of(sample), flip): row
                             for (sample, _), row in zip(missing, encoded, strict=True)}
                advance(0)
            store.add(rows)
            advance(len(batch))


@torch.no_grad()
def encode_captions(batches: Sequence[Sequence[str]], encoder: CaptionEncoder, store: PackStore,
                    advance: Callable[[int], None]) -> None:
    """Encode each batch of captions and add it to `store`."""
    for batch in batches:
        advance(0)
        rows: dict[str, Row] = {}
        for caption, row in zip(batch, encoder(batch), strict=True):
            if not finite(*(tensor for tensor in row.values() if tensor.is_floating_point())):
                raise AtelierError(f"The text encoder gives numbers that are not finite for {caption!r}.",
                                   "Choose the precision fp32, or check the model file.")
            rows[text_key(caption)] = row
        store.add(rows)
        advance(len(batch))


class _Progress:
    """One progress phase over pictures and captions; each report also checks for an interrupt."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.done = progress, 0
        if total:
            progress.phase("encoding", total)

    def of(self, what: str, total: int) -> Callable[[int], None]:
        """A callback that adds to the number of finished pictures or captions."""
        before = self.done

        def advance(count: int) -> None:
            self.progress.check()
            if count:
                self.done += count
                self.progress.advance(self.done, f"{self.done - before} of {total} {what}")

        return advance


def _missing_pictures(data: TrainingSet, store: PackStore, batch_size: int) -> list[list[Sample]]:
    """Samples without cached latents, in batches of one size."""
    flips = (False, True) if data.flip else (False,)
    by_size: dict[tuple[int, int], dict[str, Sample]] = {}
    for sample in data.samples:
        group = by_size.setdefault(target_size(sample.size, data.resolution_of(sample)), {})
        group.setdefault(latent_key(sample, data.resolution_of(sample), False), sample)

    def is_missing(sample: Sample) -> bool:
        return any(latent_key(sample, data.resolution_of(sample), flip) not in store for flip in flips)

    batches = [chunk for size in sorted(by_size) for chunk in _chunks(list(by_size[size].values()), batch_size)]
    return _filtered(batches, is_missing)


def _missing_captions(data: TrainingSet, store: PackStore, class_word: str) -> list[list[str]]:
    """Distinct captions without a cached embedding, the empty caption included, in batches. Those with the class word
    have batches of their own, so that the others' bits do not depend on it."""
    captions = dict.fromkeys(["", *(caption for sample in data.samples for caption in sample.captions)])
    further = [caption for caption in class_captions(data, class_word) if caption not in captions]
    batches = _chunks(list(captions), TEXT_BATCH) + _chunks(further, TEXT_BATCH)
    return _filtered(batches, lambda caption: text_key(caption) not in store)


def _chunks(items: Sequence[T], size: int) -> list[list[T]]:
    return [list(items[i:i + size]) for i in range(0, len(items), size)]


def _filtered(batches: Iterable[Sequence[T]], keep: Callable[[T], bool]) -> list[list[T]]:
    remaining = ([item for item in batch if keep(item)] for batch in batches)
    return [batch for batch in remaining if batch]
