"""Out-of-memory handling: detect it on any device, free the cache, raise a helpful error."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from .errors import AtelierError

_MESSAGE = re.compile(r"out of memory|can't allocate memory|not enough (\w+ ){0,3}memory|_ALLOC_FAILED", re.IGNORECASE)
"""Matches the plain `RuntimeError`s that PyTorch raises on CPUs and Apple GPUs and from CUDA's libraries."""


class OutOfMemory(Exception):
    """Memory ran out, on the device or on the host."""


@contextmanager
def unify_memory_errors() -> Iterator[None]:
    """Raise `OutOfMemory` in place of the various errors by which devices report it.

    Raises:
        OutOfMemory: memory ran out inside the block.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or _MESSAGE.search(str(error)):
            raise OutOfMemory(str(error)) from error
        raise


@contextmanager
def explain_out_of_memory(doing: str, do: str) -> Iterator[None]:
    """Turn an out-of-memory error into one that says what was going on (`doing`) and what to `do` about it.

    Raises:
        AtelierError: memory ran out inside the block.
    """
    try:
        with unify_memory_errors():
            yield
    except OutOfMemory as error:
        raise AtelierError(f"Memory ran out while {doing}.", do) from error


def free_cache(device: torch.device, *, collect: bool = True) -> None:
    """Return cached memory to the device, for other programs to use.

    Args:
        device: Whose memory.
        collect: Collect garbage first. It takes half a second where many modules are loaded (measured in the tests), so
            not for what is done for each picture.
    """
    if collect:
        gc.collect()
    _trim_heap()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif device.type == "xpu":
        torch.xpu.empty_cache()


def _trim_heap() -> None:
    """Give freed memory back to the system, which glibc keeps for itself otherwise: models of a gigabyte."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library has no such function
            ctypes.CDLL(None).malloc_trim(0)
