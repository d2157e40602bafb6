"""Check values from people against the types that a dataclass declares for its fields.

Python itself does not: `"false"` from a configuration file would count as true, and 16.5 would pass for a rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

from .errors import AtelierError
from .limits import BeyondLimits, check_characters


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


_KINDS: dict[object, tuple[Callable[[Any], bool], type, str]] = {
    "bool": (lambda value: isinstance(value, bool), bool, "true or false"),
    "int": (lambda value: isinstance(value, Integral) and not isinstance(value, bool), int, "a whole number"),
    "float": (_is_number, float, "a finite number"),
    "str": (lambda value: isinstance(value, str), str, "a text in quotes"),
}
"""By annotated type: which values are accepted, the type to convert them to, and what to ask for in an error."""


def typed(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Check each value against the type of its field.

    Args:
        cls: A dataclass whose module has `from __future__ import annotations`.
        values: By field name. Values of fields of other types than bool, int, float and str, and of names that are
            no field, are returned unchanged.

    Returns:
        The same names with plain Python values: numpy's numbers become Python's, and a whole number becomes a float
            where one is declared, so that 8 and 8.0 are the same request.

    Raises:
        AtelierError: a value is of another type, or a number is infinite or NaN; the message names the field.
    """
    types = {field.name: field.type for field in fields(cls)}
    return {name: _one(name, value, types.get(name)) for name, value in values.items()}


def check_text(name: str, text: str) -> None:
    """Require a text that tokenizers, files and messages can take.

    Raises:
        AtelierError: it holds a null character or half a character (an unpaired surrogate), as a terminal or a file of
            another encoding gives; the message begins with `name`.
    """
    try:
        check_characters(text)
    except BeyondLimits as error:
        shown = text if len(text) <= 80 else text[:77] + "..."
        raise AtelierError(f"{name} {shown!a} cannot be used: {error}.", "Type it again, as UTF-8.") from error


def _one(name: str, value: Any, kind: object) -> Any:
    if kind not in _KINDS:
        return value
    accepts, convert, expected = _KINDS[kind]
    if not accepts(value):
        hint = ", without quotes" if type(value) is str else ""
        raise AtelierError(f"{name} is {value!r}.", f"Give {expected}{hint}.")
    return convert(value)
