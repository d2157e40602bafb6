"""Torch's global random numbers, given back as they were found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Give the state of the CPU's and every accelerator's global random numbers back at the end.

    Of all of them: `torch.manual_seed`, which adapter dropout needs, seeds them all whatever device a run is on.
    """
    generators = _generators()
    states = [read() for read, _ in generators]
    try:
        yield
    finally:
        for (_, write), state in zip(generators, states, strict=True):
            write(state)


def _generators() -> list[tuple[Callable[[], Tensor], Callable[[Tensor], None]]]:
    found: list[tuple[Callable[[], Tensor], Callable[[Tensor], None]]] = [(torch.get_rng_state, torch.set_rng_state)]
    for module in (torch.cuda, torch.xpu):
        if module.is_initialized():  # asking for the state would start the device, and nobody has drawn from it yet
            found += [(partial(module.get_rng_state, index), partial(module.set_rng_state, device=index))
                      for index in range(module.device_count())]
    if torch.backends.mps.is_available():
        found.append((torch.mps.get_rng_state, torch.mps.set_rng_state))
    return found
