"""Limits on what a file from a stranger may hold, so that reading it costs little time and memory.

A few bytes can ask for very much: lists within lists until the stack ends, a number of a million digits, a name that
holds half a character and cannot be printed. Readers of JSON and TOML share these limits and this check.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that a file may hold. The defaults are far above what any real file needs."""

    size: int = 32 * 2**20
    """Bytes of the file."""
    depth: int = 64
    """Lists and tables within each other."""
    count: int = 2_000_000
    """Values."""
    digits: int = 40
    """Digits of a whole number; transformers writes one of 31 for "no limit"."""


DEFAULT = Limits()
"""Limits of files that may be as large as a vocabulary or the index of a model."""


class BeyondLimits(ValueError):
    """A value that no honest file holds. Its text says which, as the end of "… is not readable: "."""


def read_limited(path: Path, limits: Limits) -> bytes:
    """The bytes of a file; no more than one above the limit is ever read.

    Raises:
        BeyondLimits: the file is larger.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        # The system's answer first: memory for all that may be read is taken before reading.
        large = os.fstat(file.fileno()).st_size > limits.size
        data = b"" if large else file.read(limits.size + 1)
    if large or len(data) > limits.size:
        raise BeyondLimits(f"it has more than {_size(limits.size)}")
    return data


def check_values(value: Any, limits: Limits) -> None:
    """Check depth and texts of parsed values, keys included.

    Raises:
        BeyondLimits: lists and tables are nested too deep, or a text holds a null character or half a character (an
            unpaired surrogate), which no path, header or log can take.
    """
    waiting = [(value, 1)]
    while waiting:
        held, depth = waiting.pop()
        if isinstance(held, str):
            check_characters(held)
        elif isinstance(held, dict | list):
            if depth > limits.depth:
                raise BeyondLimits(f"it is nested more than {limits.depth} deep")
            waiting += [(each, depth + 1) for each in held]
            if isinstance(held, dict):
                waiting += [(each, depth + 1) for each in held.values()]


def check_characters(text: str) -> None:
    """Raise `BeyondLimits` where a text holds a null character or half a character (an unpaired surrogate)."""
    if "\0" in text:
        raise BeyondLimits("a text in it holds a null character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BeyondLimits("a text in it holds half a character") from error


def _size(count: int) -> str:
    return f"{count // 2**20} MB" if count >= 2**20 else f"{count // 2**10} kB"
