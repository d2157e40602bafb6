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


@dataclass(frozen=True)
class ValidationPlan:
    """The fixed part of a run's validation."""

    uses: tuple[Use, ...]
    held_out: bool
    """True when the pictures are kept out of training."""
    timesteps: int
    """How many, evenly spread over the schedule."""
    seed: int

    @staticmethod
    def of(items: tuple[EncodedItem, ...], options: TrainingOptions, seed: int) -> ValidationPlan:
        """Choose pictures by seed: at most `validation_pictures`, at most a tenth of the set when held out."""
        own = [item for item in items if not item.prior]
        held_out = options.monitor == "validation" and options.holdout and len(own) >= HOLDOUT_FROM
        count = min(options.validation_pictures, len(own) // 10 if held_out else len(own))
        chosen = random.Random(f"atelier validation/{seed}").sample(own, count)
        uses = tuple(Use(item.index) for item in sorted(chosen, key=lambda item: item.index))
        return ValidationPlan(uses, held_out, options.validation_timesteps, seed)

    def rows(self, schedule: int) -> Iterator[tuple[Use, int, int]]:
        """(picture, timestep, noise seed) of every comparison, for a schedule of so many timesteps."""
        for use in self.uses:
            for index in range(self.timesteps):
                t = int((index + 0.5) * schedule / self.timesteps)
                yield use, t, derived_seed("validation", self.seed, use.index, index)
