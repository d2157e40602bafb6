"""What stays on the device from step to step."""

from __future__ import annotations

import pytest
import torch
from kit.training import WIDTH, MemorySet
from torch import Tensor

from atelier.train.batch_loader import BatchLoader
from atelier.train.bucket_sampler import SampleUse

PICTURE = 4 * (2 * 4 * 8 * 8 + 6 + 77 * WIDTH)
"""Bytes of a picture: its latents' mean and deviation, six numbers of sizes, its caption."""
WEIGHT = 4
"""Bytes of a batch's one weight, which both batches share."""

asked: list[tuple[str, int]] = []
"""What was read, and of which picture."""


class Read(MemorySet):
    """Notes what is read."""

    def moments(self, index: int, flip: bool) -> tuple[Tensor, Tensor]:
        asked.append(("moments", index))
        return super().moments(index, flip)

    def text(self, index: int, variant: int) -> dict[str, Tensor]:
        asked.append(("text", index))
        return super().text(index, variant)


@pytest.mark.parametrize(("budget", "again"), [
    (2 * PICTURE + WEIGHT, []), (PICTURE + WEIGHT, [("moments", 1), ("text", 1)]),
    (0, [("moments", 0), ("moments", 1), ("text", 0), ("text", 1)])])
def test_a_picture_is_read_once_as_far_as_there_is_room(budget: int, again: list[tuple[str, int]]) -> None:
    loader = BatchLoader(Read(MemorySet.of(2).items), torch.device("cpu"), torch.float32, prior_weight=1.0,
                         cached_text=True, budget=budget)
    first = [loader((SampleUse(index),)) for index in range(2)]
    asked.clear()
    second = loader((SampleUse(0), SampleUse(1)))
    assert sorted(asked) == again
    assert torch.equal(second.mean, torch.cat([one.mean for one in first]))
