"""The correspondence of tensor names, as data that reads in both directions.

A component's table is a list of `Pair`s. Each states one equality between the original (LDM) layout and the diffusers
layout; the translation of a name, either way, is a look-up in the same list, so the inverse cannot disagree with the
forward direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from ..errors import AtelierError

Shape = tuple[int, ...]


class Relation(Enum):
    """How the bytes of corresponding tensors relate."""

    SAME = "same"
    POINTWISE = "pointwise"
    """A 1x1 convolution in the original, a linear layer in diffusers: the same bytes under another shape."""
    STACKED = "stacked"
    """One tensor in the original holds three of diffusers' on top of each other: contiguous rows."""
    TRANSPOSED = "transposed"
    """A matrix and its transpose: the only form whose bytes change."""


@dataclass(frozen=True)
class Pair:
    """One equality. `SAME` pairs are of modules and hold for everything below them; the others are of tensors.

    In a `STACKED` pair the diffusers name has a `{}` for "q", "k" and "v", in this order of rows.
    """

    original: str
    diffusers: str
    form: Relation = Relation.SAME


@dataclass(frozen=True)
class Match:
    """Tensors of the two layouts that hold the same numbers: one each, or one and three."""

    original: str
    diffusers: tuple[str, ...]
    form: Relation

    def diffusers_shape(self, original: Shape) -> Shape:
        """The shape of each diffusers tensor, from the original's."""
        if self.form is Relation.POINTWISE:
            return original[:2]
        if self.form is Relation.STACKED:
            return (original[0] // len(self.diffusers), *original[1:])
        return original[::-1] if self.form is Relation.TRANSPOSED else original

    def original_shape(self, diffusers: Shape) -> Shape:
        """The shape of the original tensor, from that of each of diffusers'."""
        if self.form is Relation.POINTWISE:
            return (*diffusers[:2], 1, 1)
        if self.form is Relation.STACKED:
            return (diffusers[0] * len(self.diffusers), *diffusers[1:])
        return diffusers[::-1] if self.form is Relation.TRANSPOSED else diffusers


class KeyTable:
    """Pairs, looked up by either side."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self.pairs = tuple(pairs)
        self._by_original = {pair.original: pair for pair in self.pairs}
        self._by_diffusers = {name: pair for pair in self.pairs for name in _diffusers_names(pair)}

    def match_original(self, name: str) -> Match | None:
        """What corresponds to a tensor of the original layout; None where the table does not know it."""
        pair, rest = _longest(self._by_original, name)
        return _match(pair, rest) if pair else None

    def match_diffusers(self, name: str) -> Match | None:
        """What corresponds to a tensor of the diffusers layout; None where the table does not know it."""
        pair, rest = _longest(self._by_diffusers, name)
        return _match(pair, rest) if pair else None


def _diffusers_names(pair: Pair) -> tuple[str, ...]:
    return tuple(pair.diffusers.format(part) for part in "qkv") if pair.form is Relation.STACKED else (pair.diffusers,)


def _match(pair: Pair, rest: str) -> Match:
    return Match(pair.original + rest, tuple(name + rest for name in _diffusers_names(pair)), pair.form)


def _longest(pairs: Mapping[str, Pair], name: str) -> tuple[Pair | None, str]:
    """The pair with the longest path that `name` lies at or below, and what remains of the name."""
    end = len(name)
    while end > 0:
        pair = pairs.get(name[:end])
        # Below a tensor there is nothing; only modules have parts.
        if pair is not None and (end == len(name) or pair.form is Relation.SAME):
            return pair, name[end:]
        end = name.rfind(".", 0, end)
    return None, ""


def unknown_tensor(name: str, component: str) -> AtelierError:
    """The error for a tensor that no table knows."""
    return AtelierError(f"The {component} has a tensor {name!r} that no Stable Diffusion model has.",
                        "This architecture is not supported; nothing was written.")
