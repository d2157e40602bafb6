"""Checkpoints of a run: LoRAs of its best, last and chosen steps, and the state that training resumes from."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from ..lora.file import load_lora, save_lora
from .run_folder import RunFolder
from .run_state import RunState
from .state_file import load_state, save_state
from .trainer import Trainer

log = logging.getLogger("atelier")

STATE_SECONDS = 120.0
"""Longest time between two saved states: at most so much work, and a step, is lost to a kill or a power cut."""

COPYING_SHARE = 0.02
"""Of a card's time, spent on copies of the weights in case that later ones are no numbers."""


class CheckpointWriter:
    """Writes what a `Trainer` has learnt to a run's folder; of several processes, in the first alone.

    Args:
        trainer: Its weights and optimiser are saved.
        folder: The run's folder.
        metadata: Builds the header of a LoRA file from the step of its weights.
        clock: Seconds, never going back.
    """

    def __init__(self, trainer: Trainer, folder: RunFolder, metadata: Callable[[int], Mapping[str, str]],
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.trainer, self.folder, self.metadata, self._clock = trainer, folder, metadata, clock
        self.finite_step = 0
        """Step of the last weights that came of finite losses."""
        self._finite = [tensor.detach().to("cpu", copy=True) for tensor in trainer.current]
        self._copied_at, self._copying = clock(), 0.0
        self._saved_at = clock()

    def resume(self) -> RunState | None:
        """Load the saved state into the trainer; None if there is none."""
        path, processes = self.folder.state, self.trainer.processes
        if not processes.from_first(path.exists):
            return None
        if processes.count == 1:
            state = load_state(path, self.trainer)
        else:  # the first process's file may lie on another machine
            content = processes.file_of_first(path.read_bytes)
            with TemporaryDirectory(prefix="atelier-") as folder:
                copy = Path(folder) / path.name
                copy.write_bytes(content)
                state = load_state(copy, self.trainer)
        state.loss_scale = state.loss_scale.to(self.trainer.device)
        self._copy_finite(state.step)
        log.info("Training resumes at step %d of %d.", state.step, self.trainer.total)
        return state

    @property
    def due(self) -> bool:
        """Whether the last state was saved longer ago than `STATE_SECONDS`."""
        return self._clock() - self._saved_at > STATE_SECONDS

    def mark_finite(self, step: int) -> None:
        """Remember the weights as they are now, after optimiser step `step`: they came of finite losses.

        They are kept in the host's memory. From a card they are fetched only so often that it costs little.
        """
        if self.trainer.device.type == "cpu" or self._clock() - self._copied_at >= self._copying / COPYING_SHARE:
            self._copy_finite(step)

    def _copy_finite(self, step: int) -> None:
        began = self._clock()
        for kept, tensor in zip(self._finite, self.trainer.current, strict=True):
            kept.copy_(tensor.detach())
        self.finite_step = step
        self._copied_at = self._clock()
        self._copying = self._copied_at - began

    def save_state(self, state: RunState) -> None:
        """Write the state that training resumes from."""
        if self.trainer.processes.first:
            save_state(self.folder.state, self.trainer, state)
        self._saved_at = self._clock()

    def save_all(self, state: RunState) -> bool:
        """Write the LoRA as it is and the state; returns whether a LoRA was written (see `save_lora`)."""
        # The small file first: where the disk has no room for the state, the LoRA may still fit.
        written = self.save_lora(self.folder.last, state.step)
        self.save_state(state)
        return written

    def save_last_finite(self) -> bool:
        """Write the LoRA of the last finite weights as the run's last one; returns as `save_lora`."""
        return self._write(self.folder.last, self._finite, self.finite_step)

    def save_lora(self, path: Path, step: int) -> bool:
        """Write the LoRA as it is after optimiser step `step`, unless it is still untrained; returns whether it was
        written (by the first process).

        In float16 it stays untrained for the first steps, until the loss scale is found.
        """
        return self._write(path, self.trainer.current, step)

    def best_weights(self) -> list[Tensor]:
        """The tensors of the best LoRA's file, in the order of the adapters, in each process."""
        adapters, processes = self.trainer.adapters, self.trainer.processes
        with processes.together():
            found = adapters.tensors_of(load_lora(self.folder.best)) if processes.first else []
        if processes.count == 1:
            return found
        tensors = found or [torch.zeros_like(master, device="cpu") for master in adapters.masters]
        flat = torch.cat([tensor.flatten().float() for tensor in tensors])
        processes.add_up(flat)  # to zeros in all others
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def _write(self, path: Path, tensors: list[Tensor], step: int) -> bool:
        weights = self.trainer.adapters.weights(tensors)
        trained = self.trainer.adapters.trained(tensors)
        if trained and self.trainer.processes.first:
            save_lora(path, weights, metadata=self.metadata(step))
        return trained
