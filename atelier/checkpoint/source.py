"""Tensors on disk under one name space, whatever they are stored in.

A `Source` lists what there is (name, dtype, shape) and gives a tensor, or some of its rows, on request. Nothing is
read before that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AtelierError
from .header import ITEM_SIZES, TORCH_NAMES, read_header

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
    """A tensor that is somewhere else: a byte range of a safetensors file, a tensor of a memory-mapped pickle, or one
    that a function makes when it is wanted."""

    dtype: str
    """safetensors' name of the dtype."""
    shape: tuple[int, ...]
    place: FileRange | Tensor | Callable[[], Tensor]

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
        if isinstance(self.place, FileRange):
            row, start = self.size // self.shape[0], self.place.begin
            return Entry(self.dtype, shape, FileRange(self.place.path, start + begin * row, start + end * row))
        return Entry(self.dtype, shape, lambda: self.read()[begin:end])

    def read_bytes(self) -> bytes | memoryview:
        """The tensor's bytes, all at once."""
        if not isinstance(self.place, FileRange):
            return tensor_bytes(self.read())
        with self.place.path.open("rb", buffering=0) as file:
            file.seek(self.place.begin)
            return file.read(self.size)

    def read(self) -> Tensor:
        """The tensor in memory of its own (a memory map would hold the file open and change under a writer's
        hands)."""
        import torch

        if isinstance(self.place, torch.Tensor):
            return self.place.clone(memory_format=torch.contiguous_format)
        if not isinstance(self.place, FileRange):
            return self.place()
        dtype = getattr(torch, TORCH_NAMES[self.dtype])
        tensor = torch.empty(self.shape, dtype=dtype)
        if tensor.numel():
            view = tensor_bytes(tensor)
            with self.place.path.open("rb", buffering=0) as file:
                file.seek(self.place.begin)
                while view:
                    got = file.readinto(view)
                    if not got:
                        raise AtelierError(f"{self.place.path} became shorter while it was read.", "Run again.")
                    view = view[got:]
        return tensor


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The tensor's bytes in row-major order; a view on them where they already lie so."""
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


@dataclass(frozen=True)
class Source:
    """Named tensors on disk and what the files say of themselves."""

    path: Path
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The safetensors metadata; of a folder, empty."""

    @property
    def files(self) -> set[Path]:
        """The files that its tensors lie in, as far as one knows: of pickles, `path` alone."""
        found = {entry.place.path for entry in self.entries.values() if isinstance(entry.place, FileRange)}
        return found or {self.path}


def open_file(path: Path) -> Source:
    """A single weight file: `.safetensors`, or a pickle (`.ckpt`, `.pt`, `.pth`, `.bin`) that holds nothing but
    weights.

    Raises:
        AtelierError: the file cannot be read or is not a weight file.
    """
    if path.suffix.lower() in (".ckpt", ".pt", ".pth", ".bin"):
        from .pickled import read_pickle

        return Source(path, read_pickle(path))
    header = read_header(path)
    entries = {name: Entry(info.dtype, info.shape, FileRange(path, info.begin, info.end))
               for name, info in header.tensors.items()}
    return Source(path, entries, header.metadata)
