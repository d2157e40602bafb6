"""What is due after an optimiser step: a validation, a round of samples that early stopping judges by, a sample."""

from __future__ import annotations

from dataclasses import dataclass

from .request.recipe import SCORES
from .request.request import TrainRequest
from .run_state import RunState

MIN_VALIDATION_INTERVAL = 50
"""Automatic validation comes at epoch ends, but not more often than every so many steps."""


@dataclass(frozen=True)
class Due:
    """Answers for a run, from its state alone, so that a resumed run does what the whole one would.

    Args:
        request: What was asked for.
        total: Optimiser steps of the run.
        steps_per_epoch: Optimiser steps of an epoch.
    """

    request: TrainRequest
    total: int
    steps_per_epoch: int

    @property
    def by_loss(self) -> bool:
        """Whether early stopping judges by the validation loss."""
        return self.request.validation.monitor == "validation"

    @property
    def by_score(self) -> bool:
        """Whether early stopping judges by the scores of sample pictures."""
        return self.request.validation.monitor in SCORES

    def validation(self, state: RunState) -> bool:
        """Whether the weights are to be validated now."""
        return self.by_loss and not self.validated(state) and self._judging(state)

    def judged_round(self, state: RunState) -> bool:
        """Whether a round of samples is due that early stopping judges by."""
        return self.by_score and self._judging(state) and not self.round_judged(state)

    def sample(self, state: RunState) -> bool:
        """Whether a picture of the current weights is due; the one at the end shows those that are handed on."""
        if self.by_score:
            return False
        every = self.request.samples.sample_every or max(1, self.total // 4)
        return state.step % every == 0 and state.step < self.total

    def validated(self, state: RunState) -> bool:
        """Whether this step was validated already."""
        return bool(state.history.validation) and state.history.validation[-1][0] == state.step

    def round_judged(self, state: RunState) -> bool:
        """Whether this step's samples were judged already."""
        return bool(state.history.judged) and state.history.judged[-1][0] == state.step

    def _judging(self, state: RunState) -> bool:
        """Whether this step is one at which the weights are judged."""
        every = self.request.validation.validate_every or max(self.steps_per_epoch, MIN_VALIDATION_INTERVAL)
        return state.step % every == 0
