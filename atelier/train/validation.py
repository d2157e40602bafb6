"""What validation looks at: the same pictures, noise and timesteps at every look.

A training loss jumps with the timestep that chance picks; only losses at equal noise and timesteps can be compared.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from ..dataset.cache import EncodedItem
from .config import TrainingOptions
from .order import Use, derived_seed

HOLDOUT_FROM = 10
"""A set smaller than this gives no picture away: validation then uses training pictures."""
BATCH_WITHOUT_GRADIENTS = 4
"""So many fit where one picture trains, since nothing is kept for a backward pass."""


@dataclass(frozen=True)
class ValidationPlan:
    """The fixed part of a run's validation."""

    uses: tuple[Use, ...]
    held_out: bool
    """True when the pictures are kept out of training."""
    timesteps: int
    """How many, evenly spread over the schedule."""
    seed: int
    batch_size: int
    """Comparisons made at once."""

    @staticmethod
    def of(items: tuple[EncodedItem, ...], options: TrainingOptions, seed: int) -> ValidationPlan:
        """Choose pictures by seed: at most `validation_pictures`, at most a tenth of the set when held out."""
        own = [item for item in items if not item.prior]
        held_out = options.monitor == "validation" and options.holdout and len(own) >= HOLDOUT_FROM
        count = min(options.validation_pictures, len(own) // 10 if held_out else len(own))
        chosen = random.Random(f"atelier validation/{seed}").sample(own, count)
        uses = tuple(Use(item.index) for item in sorted(chosen, key=lambda item: item.index))
        return ValidationPlan(uses, held_out, options.validation_timesteps, seed,
                              max(options.batch_size, BATCH_WITHOUT_GRADIENTS))

    def batches(self, schedule: int) -> Iterator[tuple[Use, list[int], list[int]]]:
        """(picture, timesteps, noise seeds) of the comparisons, for a schedule of so many timesteps."""
        for use in self.uses:
            rows = [(int((index + 0.5) * schedule / self.timesteps),
                     derived_seed("validation", self.seed, use.index, index)) for index in range(self.timesteps)]
            for start in range(0, len(rows), self.batch_size):
                timesteps, seeds = zip(*rows[start:start + self.batch_size], strict=True)
                yield use, list(timesteps), list(seeds)
