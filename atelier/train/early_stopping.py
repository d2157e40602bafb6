"""Early stopping, and the validation loss that it is judged by.

A training loss jumps with the timestep that chance picks; only losses at equal noise and timesteps can be compared, so
every validation uses the same pictures, noise and timesteps.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..dataset.cache import EncodedItem
from .bucket_sampler import SampleUse, derived_seed
from .request.request import TrainRequest

HOLDOUT_FROM = 10
"""A smaller training set gives no picture away: validation then uses training pictures."""
BATCH_WITHOUT_GRADIENTS = 4
"""So many pictures fit where one trains, since nothing is kept for a backward pass."""


@dataclass(frozen=True)
class EarlyStopping:
    """The best loss so far, and how many validations passed without a better one. Immutable: `update` returns the
    next."""

    patience: int
    """Validations without improvement after which training stops; 0: never."""
    min_delta: float = 0.0
    """A loss must be this much below the best to count as an improvement."""
    best: float = math.inf
    best_step: int = 0
    since: int = 0
    """Validations since the best."""

    def update(self, loss: float, step: int) -> EarlyStopping:
        """The state after a validation that gave `loss` at optimiser step `step`."""
        if loss < self.best - self.min_delta:
            return replace(self, best=loss, best_step=step, since=0)
        return replace(self, since=self.since + 1)

    @property
    def improved(self) -> bool:
        """True when the last validation was the best."""
        return self.since == 0 and self.best < math.inf

    @property
    def done(self) -> bool:
        """True when patience has run out."""
        return 0 < self.patience <= self.since


@dataclass(frozen=True)
class ValidationPlan:
    """The fixed part of a run's validation."""

    uses: tuple[SampleUse, ...]
    held_out: bool
    """True when the pictures are kept out of training."""
    timesteps: int
    """How many, evenly spread over the schedule."""
    seed: int
    batch_size: int
    """Comparisons made at once."""

    @staticmethod
    def of(items: tuple[EncodedItem, ...], request: TrainRequest, at_once: int = 0) -> ValidationPlan:
        """Choose pictures by seed: at most `validation_pictures`, at most a tenth of the set when held out.

        A picture that is there twice is not held out, and no folder gives away more than a fifth of its pictures: a
        concept of four pictures keeps them all. Where that leaves none, training pictures serve. `at_once` pictures go
        through the network in training, if not whole batches.
        """
        own = [item for item in items if not item.prior]
        options, seed = request.validation, request.seed
        held_out = options.monitor == "validation" and options.holdout and len(own) >= HOLDOUT_FROM
        chosen = _spared(own, min(options.validation_pictures, len(own) // 10), seed) if held_out else []
        held_out = bool(chosen)
        if not held_out:
            chosen = _stream(seed).sample(own, min(options.validation_pictures, len(own)))
        chosen.sort(key=lambda item: item.index)
        # Of an inpainting model each picture has another of its masks.
        uses = tuple(SampleUse(item.index, inpaint_mask=number % max(item.inpaint_masks, 1))
                     for number, item in enumerate(chosen))
        return ValidationPlan(uses, held_out, options.validation_timesteps, seed,
                              max(at_once or request.optimizer.batch_size, BATCH_WITHOUT_GRADIENTS))

    def batches(self, levels: Sequence[float]) -> Iterator[tuple[SampleUse, list[float], list[int]]]:
        """(picture, noise levels, noise seeds) of the comparisons: each picture at each of `levels`."""
        for use in self.uses:
            rows = [(level, derived_seed("validation", self.seed, use.index, index))
                    for index, level in enumerate(levels)]
            for start in range(0, len(rows), self.batch_size):
                batch, seeds = zip(*rows[start:start + self.batch_size], strict=True)
                yield use, list(batch), list(seeds)


def _stream(seed: int) -> random.Random:
    return random.Random(f"atelier validation/{seed}")


def _spared(own: Sequence[EncodedItem], count: int, seed: int) -> list[EncodedItem]:
    """Up to `count` pictures that training can spare."""
    stream = _stream(seed)
    drawn = stream.sample(own, count)
    others = [item for item in own if item not in drawn]
    stream.shuffle(others)
    copies = Counter(item.digest for item in own)
    left = {group: size // 5 for group, size in Counter(item.group for item in own).items()}
    chosen: list[EncodedItem] = []
    for item in (*drawn, *others):
        if len(chosen) < count and copies[item.digest] == 1 and left[item.group]:
            left[item.group] -= 1
            chosen.append(item)
    return chosen
