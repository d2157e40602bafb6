"""Batches as tensors on the training device; each picture and caption is copied there once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..dataset.cache import EncodedSet
from ..dataset.store import Row
from .bucket_sampler import Batch, SampleUse
from .denoiser import stacked

Key = tuple[object, ...]
Piece = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class TrainBatch:
    """One batch. B pictures of one size."""

    mean: Tensor
    """[B, C, …] of the latents' distribution, scaled."""
    std: Tensor
    """As `mean`."""
    conditions: tuple[Piece, ...]
    """Cached conditioning of each picture by name, of any length; without the text's where the denoiser encodes
    `captions` itself."""
    captions: tuple[str, ...]
    mask: Tensor | None
    """[B, 1, …, h, w]; None when no picture has one."""
    weights: Tensor
    """[B] loss weights: prior-preservation pictures have their own."""


@dataclass(frozen=True, kw_only=True)
class ClassBatch:
    """What holds the class in one batch of B pictures."""

    conditions: tuple[Piece, ...]
    """As a `TrainBatch` has it, of the captions with the class word in the trigger's place."""
    weights: Tensor
    """[B]: 1 where the caption contains the trigger, else 0."""


class BatchLoader:
    """Builds `TrainBatch` objects and caches their parts on the device, so that a step waits for no copy.

    Args:
        data: The encoded training set.
        device: Where training happens.
        dtype: Of the text's conditioning, the network's arithmetic type; latents stay float32.
        prior_weight: Loss weight of prior-preservation pictures.
        cached_text: Whether the text's conditioning comes from the cache.
        budget: Bytes that may stay on the device; past it, pieces are moved anew each time.
    """

    def __init__(self, data: EncodedSet, device: torch.device, dtype: torch.dtype, *, prior_weight: float,
                 cached_text: bool, budget: int = 1 << 30) -> None:
        self.data, self.device, self.dtype = data, device, dtype
        self.prior_weight, self.cached_text = prior_weight, cached_text
        self._kept: dict[Key, Piece] = {}
        self._room = budget

    def __call__(self, batch: Batch) -> TrainBatch:
        """The tensors of `batch`."""
        moments = stacked([self._keep(("moments", use.index, use.flip), lambda use=use: self._moments(use))
                            for use in batch])
        masks = [self._keep(("mask", use.index, use.flip), lambda use=use: self._mask(use)).get("mask")
                 for use in batch]
        conditions = tuple({**(self._text(use) if self.cached_text else {}), **self._spatial(use)} for use in batch)
        weights = tuple(self.prior_weight if self.data.items[use.index].prior else 1.0 for use in batch)
        mean, mask = moments["mean"], None
        if any(one is not None for one in masks):
            mask = torch.stack([torch.ones_like(mean[0, :1]) if one is None else one for one in masks])
        return TrainBatch(mean=mean, std=moments["std"], conditions=conditions, mask=mask,
                          captions=tuple(self._caption(use) for use in batch),
                          weights=self._weights(weights))

    def class_of(self, batch: Batch) -> ClassBatch | None:
        """What holds the class in `batch`; None where none of its captions contains the trigger."""
        texts = [self._class_text(use) for use in batch]
        if not any(texts):
            return None
        conditions = tuple({**(text or self._text(use)), **self._spatial(use)}
                           for use, text in zip(batch, texts, strict=True))
        return ClassBatch(conditions=conditions, weights=self._weights(tuple(float(bool(text)) for text in texts)))

    def _weights(self, weights: tuple[float, ...]) -> Tensor:
        return self._keep(("weights", weights), lambda: {"weights": torch.tensor(weights)})["weights"]

    def _spatial(self, use: SampleUse) -> Piece:
        """What is given beside the text: sizes, and for an inpainting model mask and masked picture."""
        sizes = self._keep(("size", use.index, use.flip), lambda: self._size(use))
        if not self.data.items[use.index].inpaint_masks:
            return sizes
        return {**sizes, **self._keep(("inpainting", use.index, use.flip, use.inpaint_mask), lambda: {
            "inpainting": self.data.inpainting(use.index, use.flip, use.inpaint_mask)})}

    def _moments(self, use: SampleUse) -> Piece:
        mean, std = self.data.moments(use.index, use.flip)
        return {"mean": mean, "std": std}

    def _mask(self, use: SampleUse) -> Piece:
        mask = self.data.mask(use.index, use.flip)
        return {} if mask is None else {"mask": mask}

    def _size(self, use: SampleUse) -> Piece:
        # float32: in bfloat16 there is no 1023
        return {"time_ids": self.data.time_ids(use.index, use.flip)}

    def _text(self, use: SampleUse) -> Piece:
        key = ("text", -1, 0) if use.without_caption else ("text", use.index, use.variant)
        return self._keep(key, lambda: self._row(use))

    def _class_text(self, use: SampleUse) -> Piece:
        """Empty where the caption does not contain the trigger."""
        if use.without_caption:
            return {}
        return self._keep(("class", use.index, use.variant),
                          lambda: self._typed(self.data.class_text(use.index, use.variant) or {}))

    def _row(self, use: SampleUse) -> Piece:
        return self._typed(self.data.empty_text() if use.without_caption else
                           self.data.text(use.index, use.variant))

    def _typed(self, row: Row) -> Piece:
        return {name: tensor.to(self.dtype) if tensor.is_floating_point() else tensor for name, tensor in row.items()}

    def _caption(self, use: SampleUse) -> str:
        return "" if use.without_caption else self.data.caption(use.index, use.variant)

    def _keep(self, key: Key, make: Callable[[], Piece]) -> Piece:
        found = self._kept.get(key)
        if found is None:
            found = {name: self._moved(tensor) for name, tensor in make().items()}
            size = sum(tensor.numel() * tensor.element_size() for tensor in found.values())
            if size <= self._room:
                self._room -= size
                self._kept[key] = found
        return found

    def _moved(self, tensor: Tensor) -> Tensor:
        """On the device. To a card from page-locked memory, so that the host goes on while it is copied."""
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)
