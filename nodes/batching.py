"""Inputs of nodes with `is_input_list`: IMAGE batches of any sizes, and widget values wrapped in a list of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from ..atelier.errors import AtelierError

T = TypeVar("T")


def split(batches: Sequence[Any] | None) -> list[Any]:
    """Split IMAGE batches into batches of one picture."""
    return [batch[i:i + 1] for batch in batches or () for i in range(len(batch))]


def one_each(values: Sequence[T], batches: Sequence[Any], what: str) -> list[T]:
    """Expand `values` to one for each picture: from one for all, one for each batch, or one for each picture.

    Args:
        values: The values.
        batches: The IMAGE batches that hold the pictures.
        what: Plural noun for the values, for the error message.

    Raises:
        AtelierError: the number of values is none of these.
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


def single(values: Sequence[T]) -> T:
    """The one value of a widget, or of a link.

    Raises:
        AtelierError: a link carries several values.
    """
    if len(values) != 1:
        raise AtelierError(f"{len(values)} values arrive where one is taken.", "Connect one, or set the widget.")
    return values[0]
