"""Read many tensors in another precision: the next ones are read from disk while one is converted."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Protocol, TypeVar

import torch
from torch import Tensor

AHEAD = 2
"""Tensors that are read before they are needed; the largest of SDXL's UNet has 59 MB in float16."""
_BLOCK = 1 << 18
"""Numbers at a time, which stay in the processor's cache."""
_HALVES = (torch.float16, torch.bfloat16)

Name = TypeVar("Name")


class Readable(Protocol):
    """A stored tensor."""

    def read(self) -> Tensor:
        """The tensor, in memory of its own."""
        ...


def read_as(tensors: Mapping[Name, Readable], dtype: torch.dtype, device: torch.device | str) -> dict[Name, Tensor]:
    """Read all of `tensors`, in order, as `dtype` on `device`.

    Raises:
        AtelierError: one cannot be read.
    """
    left, result = iter(tensors.items()), {}
    with ThreadPoolExecutor(1, "atelier reads") as reader:
        coming = deque((name, reader.submit(tensor.read)) for name, tensor in islice(left, AHEAD))
        while coming:
            name, reading = coming.popleft()
            coming.extend((after, reader.submit(tensor.read)) for after, tensor in islice(left, 1))
            result[name] = converted(reading.result(), dtype).to(device)
    return result


def converted(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """`tensor` as `dtype`, to the bit as `Tensor.to` rounds.

    PyTorch converts between float16 and bfloat16 one number after the other on a processor, and each of them from and
    to float32 many at once: by way of float32 it takes a quarter of the time.
    """
    if tensor.device.type != "cpu" or tensor.dtype == dtype or {tensor.dtype, dtype} != set(_HALVES):
        return tensor.to(dtype)
    flat, result = tensor.reshape(-1), torch.empty(tensor.shape, dtype=dtype)
    between, target = torch.empty(min(_BLOCK, flat.numel())), result.view(-1)
    for start in range(0, flat.numel(), _BLOCK):
        part = flat[start:start + _BLOCK]
        target[start:start + _BLOCK] = between[:part.numel()].copy_(part)
    return result
