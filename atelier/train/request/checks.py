"""Checks that the parts of a training request share: types, ranges and choices, with errors that name the field."""

from __future__ import annotations

from typing import Any

from ...errors import AtelierError
from ...fields import typed


def check_types(config: Any) -> None:
    """Bring the fields of a frozen dataclass to their declared types.

    Raises:
        AtelierError: a value is of another type; the message names the field.
    """
    for name, value in typed(type(config), vars(config)).items():
        object.__setattr__(config, name, value)  # 8 where 8.0 is declared: the same identity and the same header


def require(ok: bool, name: str, value: object, do: str) -> None:
    """Raise an `AtelierError` on the field `name` and its `value` unless `ok`; `do` says what to choose."""
    if not ok:
        raise AtelierError(f"{name} is {value!r}.", do)


def require_one_of(config: Any, name: str, allowed: tuple[str, ...]) -> None:
    """Require that the field holds one of the `allowed` values."""
    value = getattr(config, name)
    require(value in allowed, name, value, f"Choose one of: {', '.join(allowed)}.")


def require_positive(config: Any, *names: str) -> None:
    """Require that the fields are above 0."""
    for name in names:
        require(getattr(config, name) > 0, name, getattr(config, name), "Choose a number above 0.")


def require_not_negative(config: Any, *names: str) -> None:
    """Require that the fields are 0 or above."""
    for name in names:
        require(getattr(config, name) >= 0, name, getattr(config, name), "Choose 0 or a number above it.")


def require_fraction(config: Any, *names: str) -> None:
    """Require that the fields are at least 0 and below 1."""
    for name in names:
        require(0 <= getattr(config, name) < 1, name, getattr(config, name),
                "Choose a number from 0 up to but not including 1.")
