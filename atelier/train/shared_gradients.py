"""Adds up over processes what each has computed of a step, in one message."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .processes import Processes


@torch.no_grad()
def add_up_gradients(processes: Processes, weights: Sequence[Tensor], loss: Tensor) -> Tensor:
    """Add up the gradients of `weights` over all processes, in place; returns the sum of `loss` (a scalar).

    A weight that no process has a gradient of keeps none. Nothing else travels: the frozen network is the same
    everywhere, and so is each optimiser's step.
    """
    if processes.count == 1:
        return loss
    # On the processor, where asking for it waits for no card.
    given = torch.tensor([float(weight.grad is not None) for weight in weights])
    processes.add_up(given)
    parts = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    flat = torch.cat([*(part.flatten() for part in parts), loss.reshape(1)])
    processes.add_up(flat)
    *sums, total = flat.split([*(weight.numel() for weight in weights), 1])
    for weight, added, known in zip(weights, sums, given.tolist(), strict=True):
        weight.grad = added.reshape(weight.shape) if known else None
    return total.reshape(())
