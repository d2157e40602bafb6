"""What a run leaves in its folder as it goes: LoRAs of its best, last and chosen steps, and its state."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from ..lora.file import save_lora
from .run_folder import RunFolder
from .state import load_state, save_state
from .trainer import Trainer

log = logging.getLogger("atelier")

STATE_SECONDS = 120.0
"""At most so much work, and a step, is lost to a kill or a power cut."""


class CheckpointWriter:
    """Writes what a `Trainer` has learnt to a run's folder.

    Args:
        trainer: Whose weights and state are kept.
        store: The run's folder.
        metadata: Builds the header of a LoRA file from the step its weights are of.
        clock: Seconds, never going back.
    """

    def __init__(self, trainer: Trainer, store: RunFolder, metadata: Callable[[int], Mapping[str, str]],
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.trainer, self.store, self.metadata, self._clock = trainer, store, metadata, clock
        self.finite_step = 0
        """Step of the last weights that were known to be good."""
        self._good = self._current()
        self._saved_at = clock()

    def resume(self) -> bool:
        """Load the state, if there is one; returns whether there was."""
        if not self.store.state.exists():
            return False
        load_state(self.store.state, self.trainer)
        self.mark_finite()
        log.info("Training goes on from step %d of %d.", self.trainer.step, self.trainer.total)
        return True

    @property
    def due(self) -> bool:
        """Whether the state was saved so long ago that it is time again."""
        return self._clock() - self._saved_at > STATE_SECONDS

    def mark_finite(self) -> None:
        """The weights as they are now come of finite losses: remember them."""
        self._good, self.finite_step = self._current(), self.trainer.step

    def save_state(self) -> None:
        """Write what training goes on from."""
        save_state(self.store.state, self.trainer)
        self._saved_at = self._clock()

    def save_all(self) -> bool:
        """Write the LoRA as it is and the state; returns whether anything was learnt, as `save_lora`."""
        # The small file first: where the disk has no room for the state, the LoRA may still fit.
        learnt = self.save_lora(self.store.last)
        self.save_state()
        return learnt

    def save_last_finite(self) -> bool:
        """Write the LoRA of the last weights known to be good as the run's last one; returns as `save_lora`."""
        return self._write(self.store.last, self._good, self.finite_step)

    def save_best(self) -> bool:
        """Write the LoRA as it is as the run's best and have the trainer remember it; returns as `save_lora`."""
        current = self._current()
        learnt = self._write(self.store.best, current, self.trainer.step)
        if learnt:
            self.trainer.best = current
        return learnt

    def save_lora(self, path: Path) -> bool:
        """Write the LoRA as it is, unless it is still what training began with; returns whether it was written.

        In float16 it stays that for the first steps, until the loss scale is found.
        """
        return self._write(path, self._current(), self.trainer.step)

    def _current(self) -> list[Tensor]:
        return [tensor.detach().clone() for tensor in self.trainer.current]

    def _write(self, path: Path, tensors: list[Tensor], step: int) -> bool:
        weights = self.trainer.adapters.weights(tensors)
        learnt = any(bool(module.up.any()) for module in weights.values())
        if learnt:
            save_lora(path, weights, metadata=self.metadata(step))
        return learnt
