"""TOML: read what people wrote or were sent, within limits and with errors that say what is wrong; write values."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from .errors import AtelierError
from .limits import BeyondLimits, Limits, read_limited

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOML = Limits(size=2**20, depth=16)
"""The most that a TOML file may hold."""
BACKSLASHES = ("In double quotes a backslash begins an escape such as \\n: write paths in single quotes, or with / in "
               "place of each backslash.")
_TEXT_OR_COMMENT = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*(?:"{3,5}|\Z)' r"|'''.*?(?:'{3,5}|\Z)" r'|"(?:[^"\\\n]|\\.)*"?' r"|'[^'\n]*'?"
    r"|(#)[^\n]*", re.DOTALL)
"""One that nobody closed goes on to the end, so that no part of a text is looked at twice. Up to two quotes more than
the three that close a text are its last characters."""
_DOTTED = re.compile(rf"(?<![\w-])(?:[\w-]+[ \t]*\.[ \t]*){{{TOML.depth}}}")
_LONG_NUMBER = re.compile(rf"0[xob][0-9A-Fa-f_]{{70}}|[0-9](?:_?[0-9]){{{TOML.digits}}}")


def toml_value(value: Any) -> str:
    """A text, number, switch, sequence of these or member of an enumeration of them, as TOML writes it, on one line."""
    # JSON's texts are TOML's, but for the one control character that JSON lets stand.
    return json.dumps(getattr(value, "value", value), ensure_ascii=False).replace("\x7f", "\\u007f")


def read_toml_text(path: Path, do: str) -> str:
    """The text of a TOML file; editors on Windows put a byte order mark in front, which is left out.

    Raises:
        AtelierError: the file is missing (the message ends with `do`), too large, or not UTF-8.
    """
    try:
        data = read_limited(path, TOML)
        return data.decode("utf-8-sig")
    except OSError as error:
        raise AtelierError(f"{path} cannot be read: {error.strerror or error}.", do) from error
    except UnicodeDecodeError as error:
        line = error.object[:error.start].count(b"\n") + 1
        raise AtelierError(f"{path} is not UTF-8 text (line {line} holds the byte {error.object[error.start]:#04x}).",
                           "Save it as UTF-8 in your editor.") from error
    except BeyondLimits as error:
        raise AtelierError(f"{path} is not readable TOML: {error}.", do) from error


def parse_toml(text: str, name: object) -> dict[str, Any]:
    """Parse TOML; `name` is the file's, for messages.

    Raises:
        AtelierError: it is not valid TOML, or holds what no such file needs: keys or lists nested too deep, a whole
            number beyond 64 bits.
    """
    try:
        _check_text(text)
        values = tomllib.loads(text)
        _check_numbers(values, "")
    except tomllib.TOMLDecodeError as error:
        raise AtelierError(f"{name} is not valid TOML: {error}.", _advice(text, str(error))) from error
    except ValueError as error:  # such as `BeyondLimits`
        raise AtelierError(f"{name} is not valid TOML: {error}.", "Correct it.") from error
    return values


def _advice(text: str, error: str) -> str:
    """What to do about an error of the parser, which says the line: a Windows path in double quotes is the usual."""
    place = re.search(r"at line (\d+)", error)
    line = text.split("\n")[int(place[1]) - 1] if place else ""
    return f"Correct that line. {BACKSLASHES}" if "\\" in line and '"' in line else "Correct that line."


def _check_text(text: str) -> None:
    """Before parsing, which would take the time and the memory: nesting, dotted keys and numbers."""
    bare = _TEXT_OR_COMMENT.sub(lambda match: "" if match[1] else "_", text)
    if _LONG_NUMBER.search(bare):
        raise BeyondLimits(f"it holds a number of more than {TOML.digits} digits")
    if _DOTTED.search(bare):
        raise BeyondLimits(f"it holds a key of more than {TOML.depth} parts")
    depth = 0
    for match in re.finditer(r"[\[\]{}]", bare):
        depth += 1 if match[0] in "[{" else -1
        if depth > TOML.depth:
            raise BeyondLimits(f"it is nested more than {TOML.depth} deep")


def _check_numbers(value: Any, key: str) -> None:
    """Whole numbers have 64 bits in TOML 1.0; Python's parser takes any."""
    if isinstance(value, dict):
        for name, held in value.items():
            _check_numbers(held, name)
    elif isinstance(value, list):
        for held in value:
            _check_numbers(held, key)
    elif isinstance(value, int) and not -2**63 <= value < 2**63:
        raise BeyondLimits(f"{key} is a whole number beyond 64 bits")
