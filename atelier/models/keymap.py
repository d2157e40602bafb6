"""Tables that map tensor names between the original (LDM) layout and the diffusers layout, in both directions.

A component's table is a list of `Pair`s, each of which states one equality between the two layouts. Both directions
look names up in the same list, so that the inverse cannot disagree with the forward direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from ..errors import AtelierError

Shape = tuple[int, ...]


class Relation(Enum):
    """How the bytes of an original tensor relate to those of its diffusers counterpart."""

    SAME = "same"
    POINTWISE = "pointwise"
    """A 1x1 convolution in the original, a linear layer in diffusers: same bytes, other shape."""
    STACKED = "stacked"
    """One original tensor is three diffusers tensors concatenated along the first dimension."""
    TRANSPOSED = "transposed"
    """A matrix and its transpose: the only relation that changes the bytes."""


@dataclass(frozen=True)
class Pair:
    """One equality. A `SAME` pair names modules and holds for all tensors below them; the others name tensors.

    In a `STACKED` pair the diffusers name has a `{}` for "q", "k" and "v", which is also the order of the rows.
    """

    original: str
    diffusers: str
    relation: Relation = Relation.SAME


@dataclass(frozen=True)
class Match:
    """Corresponding tensors of the two layouts: one original tensor and one or three of diffusers."""

    original: str
    diffusers: tuple[str, ...]
    relation: Relation

    def diffusers_shape(self, original: Shape) -> Shape:
        """The shape of each diffusers tensor, from the original's."""
        if self.relation is Relation.POINTWISE:
            return original[:2]
        if self.relation is Relation.STACKED:
            return (original[0] // len(self.diffusers), *original[1:])
        return original[::-1] if self.relation is Relation.TRANSPOSED else original

    def original_shape(self, diffusers: Shape) -> Shape:
        """The shape of the original tensor, from the shape of each diffusers tensor."""
        if self.relation is Relation.POINTWISE:
            return (*diffusers[:2], 1, 1)
        if self.relation is Relation.STACKED:
            return (diffusers[0] * len(self.diffusers), *diffusers[1:])
        return diffusers[::-1] if self.relation is Relation.TRANSPOSED else diffusers


class KeyTable:
    """A component's pairs, with look-up by either name."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self.pairs = tuple(pairs)
        self._by_original = {pair.original: pair for pair in self.pairs}
        self._by_diffusers = {name: pair for pair in self.pairs for name in _diffusers_names(pair)}

    def match_original(self, name: str) -> Match | None:
        """The match of a tensor named as in the original layout; None if the table does not know it."""
        pair, rest = _longest(self._by_original, name)
        return _match(pair, rest) if pair else None

    def match_diffusers(self, name: str) -> Match | None:
        """The match of a tensor named as in the diffusers layout; None if the table does not know it."""
        pair, rest = _longest(self._by_diffusers, name)
        return _match(pair, rest) if pair else None


def _diffusers_names(pair: Pair) -> tuple[str, ...]:
    stacked = pair.relation is Relation.STACKED
    return tuple(pair.diffusers.format(part) for part in "qkv") if stacked else (pair.diffusers,)


def _match(pair: Pair, rest: str) -> Match:
    return Match(pair.original + rest, tuple(name + rest for name in _diffusers_names(pair)), pair.relation)


def _longest(pairs: Mapping[str, Pair], name: str) -> tuple[Pair | None, str]:
    """The pair with the longest path that `name` lies at or below, and what remains of the name."""
    end = len(name)
    while end > 0:
        pair = pairs.get(name[:end])
        # Below a tensor there is nothing; only modules have parts.
        if pair is not None and (end == len(name) or pair.relation is Relation.SAME):
            return pair, name[end:]
        end = name.rfind(".", 0, end)
    return None, ""


def unknown_tensor(name: str, component: str) -> AtelierError:
    """The error for a tensor that no table knows."""
    return AtelierError(f"The {component} has a tensor {name!r} that no Stable Diffusion model has.",
                        "This architecture is not supported; nothing was written.")
