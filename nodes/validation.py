"""Validation before a run: the editor marks the node with the error, and nothing starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..atelier.errors import AtelierError


def check(validate: Callable[[Any], Any], value: Any) -> bool | str:
    """The result for `validate_inputs`: True, or the error message to show.

    Args:
        validate: Raises `AtelierError` for a bad value. It must be quick: it may list folders, but reads no file.
        value: The widget's value; None if a link provides it, so that it can only be checked when the node runs.
    """
    if value is None:
        return True
    try:
        validate(value)
    except AtelierError as error:
        return str(error)
    return True
