"""Where each tensor of a result comes from: stored rows, put on top of each other, in rare cases transposed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..checkpoint.entry import Entry
from ..errors import AtelierError
from .keymap import KeyTable, Match, Relation, Shape, unknown_tensor

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LazyTensor:
    """How one tensor is made. As long as nothing is transposed, its bytes are those of its parts, one after the
    other."""

    shape: Shape
    parts: tuple[Entry, ...]
    transposed: bool = False

    @classmethod
    def of(cls, entry: Entry) -> LazyTensor:
        """The stored tensor as it is."""
        return cls(entry.shape, (entry,))

    @property
    def dtype(self) -> str:
        """safetensors' name of the dtype."""
        return self.parts[0].dtype

    @property
    def count(self) -> int:
        """How many numbers it holds."""
        return sum(part.count for part in self.parts)

    def read(self) -> Tensor:
        """The tensor, in memory of its own."""
        import torch

        read = [part.read() for part in self.parts]
        whole = read[0] if len(read) == 1 else torch.cat(read)
        return (whole.reshape(self.shape[::-1]).t().contiguous() if self.transposed else whole.reshape(self.shape))


def to_diffusers(table: KeyTable, original: Mapping[str, LazyTensor], component: str) -> dict[str, LazyTensor]:
    """The diffusers tensors of a component, from those of the original layout.

    Raises:
        AtelierError: a tensor is unknown, or its shape does not allow what its name asks for.
    """
    made: dict[str, LazyTensor] = {}
    for name, tensor in original.items():
        match = table.match_original(name)
        if match is None:
            raise unknown_tensor(name, component)
        _check_shape(match, tensor, name)
        shape = match.diffusers_shape(tensor.shape)
        if match.relation is Relation.STACKED:
            rows = shape[0]
            stacked = tensor.parts[0]
            for i, part in enumerate(match.diffusers):
                made[part] = LazyTensor(shape, (stacked.rows(i * rows, (i + 1) * rows),))
        else:
            made[match.diffusers[0]] = _reshaped(tensor, shape, match)
    return made


def to_original(table: KeyTable, diffusers: Mapping[str, LazyTensor], component: str) -> dict[str, LazyTensor]:
    """The tensors of the original layout, from the diffusers ones: the inverse of `to_diffusers`, from the same table.

    Raises:
        AtelierError: a tensor is unknown, or one of three that belong together is missing or of another dtype.
    """
    made: dict[str, LazyTensor] = {}
    for name, tensor in diffusers.items():
        match = table.match_diffusers(name)
        if match is None:
            raise unknown_tensor(name, component)
        if match.original in made:
            continue
        together = [diffusers.get(part) for part in match.diffusers]
        whole = [part for part in together if part is not None]
        if len(whole) < len(together) or len({(part.dtype, part.shape) for part in whole}) > 1:
            raise AtelierError(f"The {component}'s tensors {', '.join(match.diffusers)} do not fit together.",
                               "Choose a complete diffusers folder.")
        shape = match.original_shape(tensor.shape)
        if match.relation is Relation.STACKED:
            made[match.original] = LazyTensor(shape, tuple(entry for part in whole for entry in part.parts))
        else:
            made[match.original] = _reshaped(tensor, shape, match)
    return made


def _reshaped(tensor: LazyTensor, shape: Shape, match: Match) -> LazyTensor:
    turned = tensor.transposed != (match.relation is Relation.TRANSPOSED)
    return LazyTensor(shape, tensor.parts, turned)


def _check_shape(match: Match, tensor: LazyTensor, name: str) -> None:
    shape = tensor.shape
    possible = {
        Relation.SAME: True,
        Relation.POINTWISE: len(shape) >= 2 and all(n == 1 for n in shape[2:]),
        Relation.STACKED: len(shape) >= 1 and shape[0] % len(match.diffusers) == 0,
        Relation.TRANSPOSED: len(shape) == 2,
    }
    if not possible[match.relation]:
        raise AtelierError(f"The tensor {name!r} has the shape {list(shape)}, which it cannot have.",
                           "The file is damaged or of another kind; nothing was written.")
