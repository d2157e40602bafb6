"""One tensor on disk: where its bytes are, and how to read them or some of its rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AtelierError
from .header import ITEM_SIZES, TORCH_NAMES

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FileRange:
    """Bytes `begin` to `end` of a file."""

    path: Path
    begin: int
    end: int


@dataclass(frozen=True)
class Entry:
    """A tensor that is not loaded yet: a byte range of a safetensors file, a tensor of a memory-mapped pickle, or a
    function that computes it on demand."""

    dtype: str
    """safetensors' name of the dtype."""
    shape: tuple[int, ...]
    source: FileRange | Tensor | Callable[[], Tensor]

    @property
    def count(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.count * ITEM_SIZES[self.dtype]

    def rows(self, begin: int, end: int) -> Entry:
        """The part of the tensor between two indices of its first dimension; rows are contiguous, so it is a range
        too."""
        shape = (end - begin, *self.shape[1:])
        if isinstance(self.source, FileRange):
            row, start = self.size // self.shape[0], self.source.begin
            return Entry(self.dtype, shape, FileRange(self.source.path, start + begin * row, start + end * row))
        return Entry(self.dtype, shape, lambda: self.read()[begin:end])

    def read_bytes(self) -> bytes | memoryview:
        """The tensor's bytes, all at once."""
        if not isinstance(self.source, FileRange):
            return tensor_bytes(self.read())
        with self.source.path.open("rb", buffering=0) as file:
            file.seek(self.source.begin)
            return file.read(self.size)

    def read(self) -> Tensor:
        """The tensor in memory of its own (a memory map would hold the file open and change under a writer's
        hands)."""
        import torch

        if isinstance(self.source, torch.Tensor):
            return self.source.clone(memory_format=torch.contiguous_format)
        if not isinstance(self.source, FileRange):
            return self.source()
        dtype = getattr(torch, TORCH_NAMES[self.dtype])
        tensor = torch.empty(self.shape, dtype=dtype)
        if tensor.numel():
            view = tensor_bytes(tensor)
            with self.source.path.open("rb", buffering=0) as file:
                file.seek(self.source.begin)
                while view:
                    count = file.readinto(view)
                    if not count:
                        raise AtelierError(f"{self.source.path} became shorter while it was read.", "Run again.")
                    view = view[count:]
        return tensor


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The tensor's bytes in row-major order; a view on them where they already lie so."""
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
