"""Keyword arguments that a person wrote in Python's notation."""

from __future__ import annotations

import ast
from typing import Any

from ...errors import AtelierError

_LONGEST = 1000


def keyword_arguments(text: str) -> dict[str, Any]:
    """The names and values of a text such as `eps=1e-6, betas=(0.9, 0.99)`.

    Values are numbers, texts in quotes, True, False, None, and tuples, lists and tables of these.

    Raises:
        AtelierError: it is not written so, or longer than a person would write.
    """
    if not text.strip():
        return {}
    try:
        if len(text) > _LONGEST:
            raise ValueError("it is too long")
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name):
            raise ValueError("there is a value without a name")
        found = {part.arg: ast.literal_eval(part.value) for part in call.keywords if part.arg is not None}
        if len(found) < len(call.keywords):
            raise ValueError("** is not read")
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise AtelierError(f"The arguments {text[:80]!r} cannot be read.",
                           "Write them as in eps=1e-6, betas=(0.9, 0.99).") from error
    return found
