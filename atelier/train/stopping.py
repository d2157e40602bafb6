"""Early stopping, and which weights are the best so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Stopper:
    """Remembers the best loss and how many looks passed without a better one. Immutable: `look` gives the next."""

    patience: int
    """Looks without improvement after which to stop; 0: never."""
    min_delta: float = 0.0
    best: float = math.inf
    best_step: int = 0
    since: int = 0
    """Looks since the best."""

    def look(self, loss: float, step: int) -> Stopper:
        """The state after seeing `loss` at optimiser step `step`."""
        if loss < self.best - self.min_delta:
            return replace(self, best=loss, best_step=step, since=0)
        return replace(self, since=self.since + 1)

    @property
    def improved(self) -> bool:
        """True when the last look was the best."""
        return self.since == 0 and self.best < math.inf

    @property
    def done(self) -> bool:
        """True when patience has run out."""
        return 0 < self.patience <= self.since
