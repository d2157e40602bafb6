"""How often the last finite weights are fetched from a card."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from atelier.train.checkpoint_writer import COPYING_SHARE, CheckpointWriter
from atelier.train.run_folder import RunFolder


class Fetched:
    """A card's tensor whose copy to main memory takes a second of `clock`."""

    def __init__(self, clock: list[float]) -> None:
        self.clock, self.copies = clock, 0

    def detach(self) -> Any:
        self.clock[0] += 1.0
        self.copies += 1
        return torch.zeros(2)


@pytest.mark.parametrize(("device", "copies"), [("cuda", 4), ("cpu", 400)])
def test_weights_are_fetched_from_a_card_for_a_fiftieth_of_its_time(device: str, copies: int, tmp_path: Path) -> None:
    clock = [1000.0]
    tensor = Fetched(clock)
    trainer: Any = SimpleNamespace(current=[tensor], device=torch.device(device))
    writer = CheckpointWriter(trainer, RunFolder(tmp_path / "run"), lambda step: {}, lambda: clock[0])
    tensor.copies = 0
    for step in range(1, 401):
        writer.mark_finite(step)
        if step == 1:
            assert writer.finite_step == 1, "the first at once"
        clock[0] += 0.5
    # A copy of 1 s, then no other for the 50 s that 100 steps take.
    assert tensor.copies == copies and COPYING_SHARE == 1 / 50
    assert writer.finite_step == {"cuda": 301, "cpu": 400}[device]
