"""What can be known before a run: the editor then marks the node and starts nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..atelier.errors import AtelierError


def verdict(check: Callable[[Any], Any], value: Any) -> bool | str:
    """What `validate_inputs` returns: True, or the sentence that a person reads.

    Args:
        check: Raises `AtelierError` for a bad value, at once: it may list folders, but reads no file.
        value: Of a widget; None where a link gives it later, which is checked when the node runs.
    """
    if value is None:
        return True
    try:
        check(value)
    except AtelierError as error:
        return str(error)
    return True
