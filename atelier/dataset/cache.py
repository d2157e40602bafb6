"""The encoded training set that the trainer reads instead of pictures and captions, and its cache keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..models.families import family_of
from ..models.handle import DiffusersModel
from .captions import class_captions, with_class
from .store import PackStore, Row
from .types import Crop, Resolution, Sample, TrainingSet

LATENTS_VERSION, TEXT_VERSION, INPAINT_VERSION = 2, 1, 1
"""Part of every key. Raise them when decoding, geometry or the layout of rows changes."""

IN_MEMORY_BYTES = 2 << 30
"""An encoded set up to this size is kept in memory; a larger one is read from disk row by row."""


@dataclass(frozen=True, kw_only=True)
class EncodedItem:
    """Facts about an encoded sample that need none of its tensors."""

    index: int
    height: int
    """Of the latents."""
    width: int
    repeats: int
    prior: bool
    captions: int
    """Number of caption variants."""
    flips: bool
    """Whether the mirrored picture is encoded as well."""
    inpaint_masks: int = 0
    """Number of random masks for an inpainting model; 0 for other models."""
    group: str
    """Equal for pictures of one folder with equal repeats: most likely one concept."""
    digest: str
    """Hex digest of the picture's file: equal for copies."""


@dataclass(frozen=True)
class Cache:
    """The rows of one model at one precision below a cache folder.

    Device and dtype are part of the key: other arithmetic gives other bits, and a result must not depend on which
    machine filled the cache.
    """

    latents: PackStore
    """Rows `mean`, `std` ([C, …, h, w] float32, scaled), `ids` ([6] int32) and maybe `mask` ([1, …, h, w] float32,
    0..1); for an inpainting model `inpaint_masks` ([K, 1, h, w] float32, 0 or 1) and `masked` ([K, 4, h, w] float32,
    scaled)."""
    texts: PackStore
    """Rows of a model's own names; for CLIP `embeds` ([77, D]) and maybe `pooled` ([P])."""

    @classmethod
    def open(cls, folder: Path, model: DiffusersModel, device: torch.device, dtype: torch.dtype,
             inpaint_masks: int = 0) -> Cache:
        """Open, or create, the sub-folders of `folder` that belong to this model, device, precision and number of
        inpainting masks."""
        parts = [model.fingerprint, device.type, str(dtype)]
        # The fingerprint covers weights alone. The family's own scale adds nothing: older caches stay valid.
        scale = (model.latent_scale, model.latent_shift)
        scale_parts = [] if scale == (family_of(model.family).latent_scale, 0.0) else [*scale]
        mask_parts = ["inpainting", INPAINT_VERSION, inpaint_masks] if inpaint_masks else []
        return cls.of(folder, [*parts, *scale_parts, *mask_parts], parts)

    @classmethod
    def of(cls, folder: Path, latents: Sequence[object], texts: Sequence[object]) -> Cache:
        """Open, or create, the sub-folders of `folder` for latents and captions that these JSON values decide."""
        return cls(PackStore(folder / "latents" / _digest(LATENTS_VERSION, *latents)[:16]),
                   PackStore(folder / "text" / _digest(TEXT_VERSION, *texts)[:16]))


def latent_key(sample: Sample, resolution: Resolution, flip: bool) -> str:
    """The key of a picture's latents: its bytes, its mask's, the relevant fields of the size policy, and mirroring."""
    policy = [resolution.size, resolution.crop.value]
    if resolution.crop is Crop.BUCKET:
        policy += [resolution.bucket_step, resolution.max_aspect]
    return _digest(sample.digest, sample.mask_digest, policy, flip)


def text_key(caption: str) -> str:
    """The key of a caption's embedding."""
    return _digest(caption)


class EncodedSet:
    """The latents and text embeddings of a training set, read from `cache`.

    Args:
        data: The training set, with the caption variants that were encoded.
        cache: Holds every row that `data` needs.
        class_word: Whose captions are encoded as well; see `class_text`.
    """

    def __init__(self, data: TrainingSet, cache: Cache, class_word: str = "") -> None:
        self._data = data
        self._cache = cache
        self._class_word = class_word
        self.items: tuple[EncodedItem, ...] = tuple(self._item(i, sample) for i, sample in enumerate(data.samples))
        self._load_into_memory()

    def moments(self, index: int, flip: bool) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents' Gaussian, each [C, …, h, w] float32, times the scaling factor.

        `mean + std * noise` is a sample of the VAE's posterior, as a loop that encodes at every step would draw it.
        """
        row = self._latents(index, flip)
        return row["mean"], row["std"]

    def mask(self, index: int, flip: bool) -> Tensor | None:
        """[1, …, h, w] float32: weight of each latent pixel in the loss, from 0 to 1. None where all weigh 1."""
        return self._latents(index, flip).get("mask")

    def inpainting(self, index: int, flip: bool, number: int) -> Tensor:
        """[5, h, w] float32: one of the picture's random masks (1 where the model fills in), and the scaled latents of
        the picture without what the mask hides. What an inpainting model is given beside the noisy latents."""
        row = self._latents(index, flip)
        return torch.cat([row["inpaint_masks"][number], row["masked"][number]])

    def time_ids(self, index: int, flip: bool = False) -> Tensor:
        """[6] float32, SDXL's size conditioning: original height, width, crop top, left, target height, width."""
        return self._latents(index, flip)["ids"].float()

    def text(self, index: int, variant: int) -> Row:
        """The conditioning of one caption, by name and without a batch dimension: for CLIP "embeds" [77, D] and, where
        the model has it, "pooled" [P]."""
        return self._text(self.caption(index, variant))

    def class_text(self, index: int, variant: int) -> Row | None:
        """The conditioning of one caption with the class word in the trigger's place, as `text` gives it. None where
        the caption does not contain the trigger, or no class word was given."""
        caption = with_class(self.caption(index, variant), self._data.trigger, self._class_word)
        return None if caption is None else self._text(caption)

    def empty_text(self) -> Row:
        """The conditioning of the empty caption, as `text` gives it."""
        return self._text("")

    def caption(self, index: int, variant: int) -> str:
        """The caption itself."""
        return self._data.samples[index].captions[variant]

    def _latents(self, index: int, flip: bool) -> dict[str, Tensor]:
        sample = self._data.samples[index]
        return self._cache.latents.read(latent_key(sample, self._data.resolution_of(sample), flip))

    def _text(self, caption: str) -> Row:
        return self._cache.texts.read(text_key(caption))

    def _item(self, index: int, sample: Sample) -> EncodedItem:
        key, latents = latent_key(sample, self._data.resolution_of(sample), False), self._cache.latents
        shape = latents.shape(key, "mean")
        assert shape is not None
        masks = latents.shape(key, "inpaint_masks")
        return EncodedItem(index=index, height=shape[-2], width=shape[-1], repeats=sample.repeats, prior=sample.prior,
                           captions=len(sample.captions), flips=self._data.flip, digest=sample.digest,
                           inpaint_masks=masks[0] if masks else 0,
                           group=f"{sample.repeats}/{sample.image.parent}")

    def _load_into_memory(self) -> None:
        samples = self._data.samples
        flips = (False, True) if self._data.flip else (False,)
        pictures = {latent_key(sample, self._data.resolution_of(sample), flip) for sample in samples for flip in flips}
        captions = {text_key(caption) for sample in samples for caption in (*sample.captions, "")}
        captions |= {text_key(caption) for caption in class_captions(self._data, self._class_word)}
        if self._cache.latents.size(pictures) + self._cache.texts.size(captions) <= IN_MEMORY_BYTES:
            self._cache.latents.hold(pictures)
            self._cache.texts.hold(captions)


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
