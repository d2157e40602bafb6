"""A training loop on small parts, and progress that ends it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from kit.training import MemorySet, denoiser
from safetensors.torch import load_file

from atelier.progress import Interrupted, Progress
from atelier.train.loop import Loop
from atelier.train.request.presets import build_request
from atelier.train.request.request import TrainRequest
from atelier.train.run_folder import RunFolder
from atelier.train.trainer import Trainer

QUIET = dict(learning_rate=5e-3, batch_size=2, monitor="off", patience=0, schedule="constant", cuda_graphs="off")
"""Options of a run without validation, in plain steps on every device."""


def request(*options: Mapping[str, Any], **values: Any) -> TrainRequest:
    """A training request from the defaults, by the flat names of its values."""
    return build_request(None, *options, values)


class StopAt(Progress):
    """Interrupts when it is asked for the n-th time; may ask to end training instead."""

    def __init__(self, interrupt: int = -1, stop: int = -1) -> None:
        self.interrupt, self.stop, self.asked = interrupt, stop, 0
        self.measured: list[dict] = []

    def check(self) -> None:
        self.asked += 1
        if self.asked == self.interrupt:
            raise Interrupted

    def stop_requested(self) -> bool:
        return self.asked == self.stop

    def measure(self, values) -> None:
        self.measured.append(dict(values))


def loop_in(folder: Path, request: TrainRequest, progress: Progress | None = None, data: MemorySet | None = None,
            unet: Any = None, **more: Any) -> Loop:
    """Of a small UNet on eight pictures, if not told otherwise; its files go into `folder`."""
    trainer = Trainer(denoiser(unet), data or MemorySet.of(8), request)
    return Loop(trainer, RunFolder(folder), progress or Progress(), metadata=lambda step: {"step": str(step)}, **more)


def train_steps(trainer: Trainer, count: int) -> list[float]:
    """The losses of the trainer's first optimiser steps."""
    return [trainer.train_step(step, trainer.initial_loss_scale).loss.item() for step in range(count)]


def same(one: Path, other: Path) -> bool:
    """Whether two safetensors files hold the same tensors, to the last bit."""
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
