"""Batches of pictures of one size, determined by (seed, epoch) alone.

There is no state, so a resumed run has exactly the batches of an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from ..dataset.cache import EncodedItem
from ..errors import AtelierError

MAX_USES = 1_000_000
"""Uses of pictures in an epoch at most: the order of an epoch lists each, which takes seconds and 200 MB at this many.
"""


@dataclass(frozen=True)
class SampleUse:
    """One use of a picture in a batch."""

    index: int
    flip: bool = False
    variant: int = 0
    """Index of the picture's caption."""
    without_caption: bool = False
    inpaint_mask: int = 0
    """Index of the picture's random mask, for an inpainting model."""


Batch = tuple[SampleUse, ...]
"""Pictures of one size that go through the UNet together."""


@dataclass(frozen=True)
class BucketSampler:
    """The batches of every epoch.

    Pictures are used `repeats` times an epoch; prior-preservation pictures are cycled so that as many of them as
    of the others are used. The last batch of a size may be smaller: every picture counts exactly as often as asked.

    Raises:
        AtelierError: an epoch has more than `MAX_USES` uses.
    """

    items: tuple[EncodedItem, ...]
    batch_size: int
    seed: int
    caption_dropout: float = 0.0

    def __post_init__(self) -> None:
        uses = sum(item.repeats for item in self.items if not item.prior)
        if uses > MAX_USES:
            raise AtelierError(f"An epoch would use pictures {uses} times, more than {MAX_USES}.",
                               "Lower repeats, or the number at the beginning of the folders' names.")

    def epoch(self, epoch: int) -> list[Batch]:
        """The batches of epoch `epoch` (from 0), shuffled."""
        chance = random.Random(f"atelier/{self.seed}/{epoch}")
        by_size: dict[tuple[int, int], list[SampleUse]] = {}
        for item in self._items(epoch):
            use = SampleUse(item.index, item.flips and chance.random() < 0.5, chance.randrange(item.captions),
                            self.caption_dropout > 0 and chance.random() < self.caption_dropout,
                            chance.randrange(item.inpaint_masks) if item.inpaint_masks else 0)
            by_size.setdefault((item.height, item.width), []).append(use)
        batches: list[Batch] = []
        for size in sorted(by_size):
            uses = by_size[size]
            chance.shuffle(uses)
            batches += [tuple(uses[i:i + self.batch_size]) for i in range(0, len(uses), self.batch_size)]
        chance.shuffle(batches)
        return batches

    @property
    def batches_per_epoch(self) -> int:
        """The same for every epoch that uses the same pictures; prior pictures of mixed sizes may vary it by a few."""
        return len(self.epoch(0))

    def _items(self, epoch: int) -> list[EncodedItem]:
        own = [item for item in self.items if not item.prior for _ in range(item.repeats)]
        prior = [item for item in self.items if item.prior]
        start = epoch * len(own)
        return own + [prior[(start + i) % len(prior)] for i in range(len(own))] if prior else own


def groups(batches: Sequence[Batch], accumulation: int) -> list[list[Batch]]:
    """Batches by optimiser step: `accumulation` each, the epoch's last step possibly fewer."""
    return [list(batches[i:i + accumulation]) for i in range(0, len(batches), accumulation)]


def steps_per_epoch(sampler: BucketSampler, accumulation: int) -> int:
    """Optimiser steps in an epoch."""
    return math.ceil(sampler.batches_per_epoch / accumulation)


def derived_seed(*parts: object) -> int:
    """A 63-bit seed from `parts`; the same on every machine and Python version."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
