"""The device that tests compute on: the processor, or what ATELIER_TEST_DEVICE names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest
    import torch


def chosen_device() -> torch.device:
    import torch

    return torch.device(device_name())


def device_name() -> str:
    """The same for those that have no use for torch."""
    return os.environ.get("ATELIER_TEST_DEVICE", "cpu")


def read_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have losses read after each step on a card too, as on a processor: tests of interrupts count on it."""
    import atelier.train.checkpoint_writer
    import atelier.train.loop

    monkeypatch.setattr(atelier.train.loop, "READ_SECONDS", -1.0)
    monkeypatch.setattr(atelier.train.checkpoint_writer, "COPYING_SHARE", float("inf"))
