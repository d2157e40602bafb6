"""Read JSON from strangers: within limits, and with errors that say what is wrong.

Every JSON file that others wrote is read here: configurations of diffusers folders and PEFT adapters, the index of a
sharded model, the header of a safetensors file, texts in pictures.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from reprlib import repr as short
from typing import Any

from .errors import AtelierError
from .limits import DEFAULT, BeyondLimits, Limits, check_values, read_limited


def parse_json(text: str | bytes, limits: Limits = DEFAULT, *,
               pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Parse JSON.

    Args:
        text: UTF-8, if bytes; a byte order mark is passed by.
        limits: The most that it may hold. Depth is limited by the parser alone; `check_values` does it exactly.
        pairs: Makes an object of its pairs, as the argument `object_pairs_hook` of `json.loads`.

    Raises:
        ValueError: it is not JSON, or holds more than `limits`; the text says why.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")  # its error is a ValueError
    if len(text) > limits.size:
        raise BeyondLimits(f"it has more than {limits.size} characters")
    # An upper bound, for nothing; parsing first would take the memory.
    if text.count(",") + text.count("[") + text.count("{") > limits.count:
        raise BeyondLimits(f"it holds more than {limits.count} values")

    def whole(digits: str) -> int:
        if len(digits) > limits.digits:
            raise BeyondLimits(f"it holds a number of {len(digits)} digits")
        return int(digits)

    try:
        return json.loads(text, parse_int=whole, object_pairs_hook=pairs)
    except RecursionError as error:
        raise BeyondLimits(f"it is nested more than {limits.depth} deep") from error


def read_json(path: Path, do: str, limits: Limits = DEFAULT) -> Any:
    """The JSON value in a file.

    Args:
        path: The file.
        do: What a person can do about a damaged one; ends the error.
        limits: The most that it may hold.

    Raises:
        AtelierError: the file is missing, is not JSON, or holds more than `limits`; the message says why.
    """
    try:
        value = parse_json(read_limited(path, limits), limits)
        check_values(value, limits)
    except UnicodeDecodeError as error:
        raise AtelierError(f"{path} is not readable JSON: it is not UTF-8 text.", do) from error
    except ValueError as error:
        raise AtelierError(f"{path} is not readable JSON: {error}.", do) from error
    except OSError as error:
        raise AtelierError(f"{path} cannot be read as JSON: {error.strerror or error}.", do) from error
    return value


def read_json_object(path: Path, do: str, limits: Limits = DEFAULT) -> dict[str, Any]:
    """The JSON object in a file. Arguments and errors as for `read_json`.

    Raises:
        AtelierError: the file cannot be read, or holds something else.
    """
    value = read_json(path, do, limits)
    if not isinstance(value, dict):
        raise AtelierError(f"{path} is not a JSON object but {short(value)}.", do)
    return value
