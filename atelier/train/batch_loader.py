"""Batches as tensors on the training device; each picture and caption is copied there once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..dataset.cache import EncodedSet
from ..models.text import TextBatch
from .bucket_sampler import Batch, SampleUse

Key = tuple[object, ...]
Piece = tuple[Tensor | None, ...]


@dataclass(frozen=True, kw_only=True)
class TrainBatch:
    """One batch. B pictures of one size."""

    mean: Tensor
    """[B, 4, h, w] of the latents' distribution, scaled."""
    std: Tensor
    """[B, 4, h, w]."""
    text: TextBatch | None
    """Cached conditioning; None when the text encoder is trained and encodes `captions` itself."""
    captions: tuple[str, ...]
    time_ids: Tensor | None
    """[B, 6], SDXL only."""
    mask: Tensor | None
    """[B, 1, h, w]; None when no picture has one."""
    weights: Tensor
    """[B] loss weights: prior-preservation pictures have their own."""


class BatchLoader:
    """Builds `TrainBatch` objects and caches their parts on the device, so that a step waits for no copy.

    Args:
        data: The encoded training set.
        device: Where training happens.
        dtype: Of the conditioning, the UNet's arithmetic type; latents stay float32.
        prior_weight: Loss weight of prior-preservation pictures.
        live_text: The text encoder is trained, so cached embeddings are not used.
        size_ids: The UNet wants SDXL's size and crop ids.
        budget: Bytes that may stay on the device; past it, pieces are moved anew each time.
    """

    def __init__(self, data: EncodedSet, device: torch.device, dtype: torch.dtype, *, prior_weight: float,
                 live_text: bool, size_ids: bool, budget: int = 1 << 30) -> None:
        self.data, self.device, self.dtype = data, device, dtype
        self.prior_weight, self.live_text, self.size_ids = prior_weight, live_text, size_ids
        self._kept: dict[Key, Piece] = {}
        self._room = budget

    def __call__(self, batch: Batch) -> TrainBatch:
        """The tensors of `batch`."""
        moments = [self._keep(("moments", u.index, u.flip), lambda u=u: self.data.moments(u.index, u.flip))
                   for u in batch]
        masks = [self._keep(("mask", u.index, u.flip), lambda u=u: (self.data.mask(u.index, u.flip),))[0]
                 for u in batch]
        text = None if self.live_text else self._text(batch)
        ids = [self._keep(("ids", u.index, u.flip), lambda u=u: (self.data.time_ids(u.index, u.flip),))[0]
               for u in batch if self.size_ids]
        weights = [self.prior_weight if self.data.items[u.index].prior else 1.0 for u in batch]
        mean = _stack([m[0] for m in moments])
        mask = None
        if any(m is not None for m in masks):
            mask = _stack([torch.ones_like(mean[0, :1]) if m is None else m for m in masks])
        return TrainBatch(mean=mean, std=_stack([m[1] for m in moments]), text=text,
                          captions=tuple(self._caption(u) for u in batch),
                          time_ids=_stack(ids) if ids else None,  # float32: in bfloat16 there is no 1023
                          mask=mask, weights=torch.tensor(weights, device=self.device))

    def _text(self, batch: Batch) -> TextBatch:
        rows = [self._keep(("text", -1 if u.without_caption else u.index, u.variant if not u.without_caption else 0),
                           lambda u=u: self._row(u)) for u in batch]
        pooled = [row[1] for row in rows if row[1] is not None]
        return TextBatch(_stack([row[0] for row in rows]), _stack(pooled) if pooled else None)

    def _row(self, use: SampleUse) -> Piece:
        row = self.data.empty() if use.without_caption else self.data.text(use.index, use.variant)
        return (row.embeds.to(self.dtype), None if row.pooled is None else row.pooled.to(self.dtype))

    def _caption(self, use: SampleUse) -> str:
        return "" if use.without_caption else self.data.caption(use.index, use.variant)

    def _keep(self, key: Key, make: Callable[[], Piece]) -> Piece:
        found = self._kept.get(key)
        if found is None:
            found = tuple(None if t is None else t.to(self.device) for t in make())
            size = sum(t.numel() * t.element_size() for t in found if t is not None)
            if size <= self._room:
                self._room -= size
                self._kept[key] = found
        return found


def _stack(rows: Sequence[Tensor | None]) -> Tensor:
    return torch.stack([row for row in rows if row is not None])
