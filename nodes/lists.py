"""Inputs of nodes that take lists: IMAGE batches of any sizes, and widgets that arrive wrapped in a list of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from ..atelier.errors import AtelierError

T = TypeVar("T")


def singles(batches: Sequence[Any] | None) -> list[Any]:
    """Every picture of some IMAGE batches as a batch of one."""
    return [batch[i:i + 1] for batch in batches or () for i in range(len(batch))]


def one_each(values: Sequence[T], batches: Sequence[Any], what: str) -> list[T]:
    """A value for every single picture: one for all, one for each batch, or one for each picture.

    Args:
        what: What an error calls the values.

    Raises:
        AtelierError: another number of values than of pictures or batches.
    """
    counts = [len(batch) for batch in batches]
    if len(values) == 1:
        return list(values) * sum(counts)
    if len(values) == sum(counts):
        return list(values)
    if len(values) == len(counts):
        return [value for value, count in zip(values, counts, strict=True) for _ in range(count)]
    raise AtelierError(f"There are {sum(counts)} pictures and {len(values)} {what}.",
                       f"Give one for all pictures, or one for each ({sum(counts)}).")


def only(values: Sequence[T]) -> T:
    """The value of a widget, or of a link that carries one value.

    Raises:
        AtelierError: a link carries several.
    """
    if len(values) != 1:
        raise AtelierError(f"{len(values)} values arrive where one is taken.", "Connect one, or set the widget.")
    return values[0]
