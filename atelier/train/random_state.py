"""Saves and restores the state of torch's global random number generators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore the state of the global generators of the CPU and of every accelerator at the end.

    All of them, because `torch.manual_seed`, which adapter dropout needs, seeds them all.
    """
    generators = _generators()
    states = [read() for read, _ in generators]
    try:
        yield
    finally:
        for (_, write), state in zip(generators, states, strict=True):
            write(state)


def random_stream(device: torch.device, seed: int) -> torch.Generator:
    """A generator seeded with `seed`: on `device`, or on the CPU where the device has none (DirectML)."""
    try:
        return torch.Generator(device).manual_seed(seed)
    except RuntimeError:
        return torch.Generator().manual_seed(seed)


def _generators() -> list[tuple[Callable[[], Tensor], Callable[[Tensor], None]]]:
    generators: list[tuple[Callable[[], Tensor], Callable[[Tensor], None]]] = [
        (torch.get_rng_state, torch.set_rng_state)]
    for module in (torch.cuda, torch.xpu):
        if module.is_initialized():  # asking for the state would start the device, and nobody has drawn from it yet
            generators += [(partial(module.get_rng_state, index), partial(module.set_rng_state, device=index))
                      for index in range(module.device_count())]
    if torch.backends.mps.is_available():
        generators.append((torch.mps.get_rng_state, torch.mps.set_rng_state))
    return generators
