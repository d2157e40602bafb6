"""Batch size 0: as many pictures as fit into a card."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from .memory_plan import plan_memory
from .processes import Processes
from .request.device import DeviceConfig
from .request.request import TrainRequest
from .step_count import StepCount

log = logging.getLogger("atelier")

MOST = 64
"""No larger batch is chosen: few steps would be left of a training."""
SHARE = 0.85
"""Of the whole card's memory. The rest is for the display, the driver and inputs that are kept on the card."""


def fitting_batch(count: Callable[[int], StepCount], config: DeviceConfig, memory: int, most: int) -> int:
    """The largest batch of which a step fits as one picture does: without gradient checkpointing where one fits without
    it, or with it. 1 where blocks have to wait in main memory even for one.

    Chosen by the whole memory of a card, not by what is free: the batch decides the weights, so a run that is resumed
    beside another program has to find the same one.

    Args:
        count: The memory of a step with so many pictures. Asked for a few numbers, each at most once.
        config: Whether checkpointing and swapped blocks are allowed.
        memory: Bytes of the card.
        most: No more than this; the pictures that there are, say.
    """
    room, most = int(SHARE * memory), min(MOST, most)
    if most <= 1:
        return 1
    first = plan_memory(count(1), config, room)
    if first.need is None or not first.fits or (first.swapped and config.blocks_to_swap < 0):
        return 1
    same = replace(config, gradient_checkpointing="on" if first.checkpointing else "off",
                   blocks_to_swap=max(0, config.blocks_to_swap))

    @cache
    def need(batch: int) -> int:
        return plan_memory(count(batch), same, room).need or 0

    # What a step keeps grows nearly in proportion to the pictures; the rest is counted.
    more = max(1, need(2) - first.need)
    batch = min(most, 1 + (room - first.need) // more)
    while batch > 1 and need(batch) > room:
        batch -= 1
    while batch < most and need(batch + 1) <= room:
        batch += 1
    return batch


def with_fitting_batch(request: TrainRequest, own: Callable[[], int], processes: Processes) -> TrainRequest:
    """The request with a batch size that fits every process's card, where it leaves that open.

    Args:
        request: As it was asked for.
        own: What fits this process's card; called where the batch size is 0.
        processes: All get the smallest of what they find.
    """
    if request.optimizer.batch_size:
        return request
    with processes.together():
        found = own()
    size = min(processes.exchange(found))
    log.info("Batch size %d: as many pictures as fit.", size)
    return replace(request, optimizer=replace(request.optimizer, batch_size=size))
