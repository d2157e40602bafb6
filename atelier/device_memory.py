"""Memory that runs out: told from other errors, given back, and put in words that a person can act on."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .errors import AtelierError

_SAID = re.compile(r"out of memory|can't allocate memory|not enough (\w+ ){0,3}memory|_ALLOC_FAILED", re.IGNORECASE)
"""What PyTorch says where it raises a plain `RuntimeError`: for processors, Apple's graphics, CUDA's libraries."""


class OutOfMemory(Exception):
    """Memory ran out, on the device or in the machine."""


@contextmanager
def memory_errors_alike() -> Iterator[None]:
    """Make one error of the different ones by which devices say that memory ran out.

    Raises:
        OutOfMemory: it ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or _SAID.search(str(error)):
            raise OutOfMemory(str(error)) from error
        raise


@contextmanager
def memory_for(doing: str, do: str) -> Iterator[None]:
    """Where memory runs out, say while `doing` what, and what to `do`.

    Raises:
        AtelierError: it ran out.
    """
    try:
        with memory_errors_alike():
            yield
    except OutOfMemory as error:
        raise AtelierError(f"Memory ran out while {doing}.", do) from error


def free(device: torch.device) -> None:
    """Give back what nothing holds any more, to whoever shares the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif device.type == "xpu":
        torch.xpu.empty_cache()
