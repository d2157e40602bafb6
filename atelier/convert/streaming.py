"""From tensors to bytes on disk: casts, transposes, progress and the checks before the first byte is written."""

from __future__ import annotations

import math
import shutil
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoint.entry import Entry
from ..checkpoint.header import ITEM_SIZES, TORCH_NAMES
from ..checkpoint.write import Output, write_safetensors
from ..errors import AtelierError
from ..models.lazy_tensor import LazyTensor
from ..progress import Progress
from .options import PRECISIONS, Merge
from .scaled import becomes_scaled, rounded

if TYPE_CHECKING:
    from torch import Tensor

FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_WORDS = {1: "B", 2: "H", 4: "I", 8: "Q"}
_HALF_MAX = 65504.0


class Stream:
    """Writes weight files one after the other and reports progress over all of them, in megabytes."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._done = 0
        progress.phase("converting", max(1, total // 1_000_000))

    def write(self, path: Path, tensors: Mapping[str, LazyTensor], precision: str, metadata: Mapping[str, str]) -> int:
        """Write tensors to a safetensors file and return its size."""
        return write_safetensors(path, (_output(name, tensor, precision) for name, tensor in tensors.items()),
                                 {"format": "pt", **metadata}, self._advance)

    def _advance(self, count: int) -> None:
        self._done += count
        self._progress.advance(self._done // 1_000_000)
        self._progress.check()


def written_dtype(stored: str, precision: str) -> str:
    """The dtype a tensor is written in; whole numbers stay what they are."""
    return PRECISIONS[precision] or stored if stored in FLOATS else stored


def written_size(tensors: Mapping[str, LazyTensor], precision: str) -> int:
    """How many bytes the tensors will take."""
    return sum(tensor.count * ITEM_SIZES[written_dtype(tensor.dtype, precision)] for tensor in tensors.values())


class Rounding:
    """How much of a merge the type of the written weights rounds away, summed over all changed tensors."""

    def __init__(self) -> None:
        self._error = self._change = 0.0

    def add(self, before: Tensor, exact: Tensor, rounded: Tensor) -> None:
        """Count one tensor: as it was, as the merge made it in float32, and as it is written."""
        self._change += float((exact - before.float()).square().sum())
        self._error += float((rounded.float() - exact).square().sum())

    @property
    def share(self) -> float:
        """Norm of the rounding errors over the norm of the change; 0 where nothing changed."""
        return math.sqrt(self._error / self._change) if self._change else 0.0


def merged(tensors: Mapping[str, LazyTensor], component: str, merge: Merge, precision: str, rounding: Rounding
           ) -> dict[str, LazyTensor]:
    """The tensors, wrapped so that `merge` changes them when they are read.

    A change is computed in float32 and rounded once, to the type that is written. The tensors beside it are cast as
    well, because some are written as one with it.

    Args:
        tensors: A component's, by diffusers name.
        component: Its folder's name.
        merge: Gives the change of a tensor.
        precision: Of the written weights.
        rounding: Learns what is lost.
    """
    result: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        change, dtype = merge(component, name), written_dtype(tensor.dtype, precision)
        if precision == "fp8" and component == "unet" and becomes_scaled(name, tensor.shape):
            if change is not None:  # not rounded to float16 on the way
                tensor = LazyTensor(tensor.shape, (_changed(tensor, change, "F32", name, rounding, rounded),))
        elif change is not None:
            tensor = LazyTensor(tensor.shape, (_changed(tensor, change, dtype, name, rounding),))
        elif dtype != tensor.dtype:
            tensor = LazyTensor(tensor.shape, (_made(tensor, dtype, name),))
        result[name] = tensor
    return result


def cast(tensors: Mapping[str, LazyTensor], precision: str) -> dict[str, LazyTensor]:
    """The tensors in the types that are written."""
    types = {name: written_dtype(tensor.dtype, precision) for name, tensor in tensors.items()}
    return {name: tensor if types[name] == tensor.dtype else
            LazyTensor(tensor.shape, (_made(tensor, types[name], name),)) for name, tensor in tensors.items()}


def check_space(path: Path, size: int) -> None:
    """Refuse to start if the result does not fit on the disk.

    Raises:
        AtelierError: the disk has less than `size` bytes free.
    """
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise AtelierError(f"{path} needs {size / 1e6:.0f} MB, and {existing} has {free / 1e6:.0f} MB free.",
                           "Free some space or choose another disk.")


def _output(name: str, tensor: LazyTensor, precision: str) -> Output:
    dtype = written_dtype(tensor.dtype, precision)
    if dtype != tensor.dtype:
        return Output(name, dtype, tensor.shape, (_made(tensor, dtype, name),))
    if tensor.transposed:
        return Output(name, dtype, tensor.shape, (_Transposed(dtype, tensor.shape, tensor.read, tensor.parts),))
    return Output(name, dtype, tensor.shape, tensor.parts)


@dataclass(frozen=True)
class _Transposed(Entry):
    """A matrix that is transposed without torch, whose import costs seconds and hundreds of megabytes."""

    stored: tuple[Entry, ...]

    def read_bytes(self) -> bytes:
        rows = array(_WORDS[ITEM_SIZES[self.dtype]], b"".join(part.read_bytes() for part in self.stored))
        columns = array(rows.typecode)
        width = self.shape[0]
        for column in range(width):
            columns.extend(rows[column::width])
        return columns.tobytes()


def _made(tensor: LazyTensor, dtype: str, name: str) -> Entry:
    """The tensor in another type."""
    return Entry(dtype, tensor.shape, lambda: _cast(tensor.read(), dtype, name))


def _changed(tensor: LazyTensor, change: Callable[[Tensor], Tensor], dtype: str, name: str, rounding: Rounding,
             stored: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Entry:
    """The tensor after a merge, in the type that is written. `stored` gives what a reader makes of it, for the count of
    what is lost."""
    def make() -> Tensor:
        before = tensor.read()
        after = change(before)
        if after.shape != before.shape:
            raise AtelierError(f"Merging gave {name!r} the shape {list(after.shape)}, not {list(before.shape)}.",
                               "The LoRA belongs to another model.")
        written = _cast(after, dtype, name)
        rounding.add(before, after.float(), stored(written))
        return written

    return Entry(dtype, tensor.shape, make)


def _cast(tensor: Tensor, dtype: str, name: str) -> Tensor:
    import torch

    # float8 cannot hold larger ones, and torch finds no maximum in it.
    if dtype == "F16" and tensor.dtype.itemsize > 1 and tensor.numel() and float(tensor.abs().max()) > _HALF_MAX:
        raise AtelierError(f"{name!r} holds numbers beyond {_HALF_MAX:g}, the largest of float16.",
                           "Choose bf16 or keep.")
    return tensor.to(getattr(torch, TORCH_NAMES[dtype]))
