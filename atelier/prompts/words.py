"""The word lists of the offline writers, read from `words.toml` once."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@cache
def _tables() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))


def words(table: str) -> dict[str, list[str]]:
    """The lists of one table: "ways" (light, view, colours, medium) or "subjects" and "places", by category."""
    return _tables()[table]
