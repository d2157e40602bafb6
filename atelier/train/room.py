"""Memory on the device that runs out: given back, and put in words that a person can act on."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import AtelierError


def free(device: torch.device) -> None:
    """Give back what nothing holds any more, to whoever shares the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def memory_for(doing: str, do: str) -> Iterator[None]:
    """Where memory runs out, say while `doing` what, and what to `do`.

    Raises:
        AtelierError: it ran out.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise AtelierError(f"Memory ran out while {doing}.", do) from error
