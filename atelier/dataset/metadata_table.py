"""Captions from a table beside the pictures: `metadata.jsonl` or `metadata.csv`, as the `datasets` library reads them.

Each row names a picture in `file_name`, relative to the table's folder, and holds its caption in one of the usual
columns (`columns.CAPTION_COLUMNS`).
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import AtelierError
from ..json_files import parse_json
from ..limits import Limits, read_limited
from .columns import CAPTION_COLUMNS

NAMES = ("metadata.jsonl", "metadata.csv")
_LIMITS = Limits(size=2**28)


class MetadataTables:
    """Finds captions of pictures below a folder in the tables there; reads each table once.

    Args:
        root: The folder that is searched for pictures; tables above it do not count.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read: dict[Path, dict[str, tuple[str, ...]]] = {}

    def find(self, picture: Path) -> tuple[str, ...]:
        """The captions of `picture` in the nearest table that names it; empty where none does.

        Raises:
            AtelierError: a table cannot be read; the message names file and line.
        """
        for folder in picture.parents:
            captions = self._captions(folder).get(_key(picture.relative_to(folder).as_posix()))
            if captions or folder == self._root:
                return captions or ()
        return ()

    def _captions(self, folder: Path) -> dict[str, tuple[str, ...]]:
        if folder not in self._read:
            file = next((folder / name for name in NAMES if (folder / name).is_file()), None)
            self._read[folder] = {} if file is None else dict(_rows(file))
        return self._read[folder]


def _rows(file: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name, captions) of each row that has both."""
    try:
        text = read_limited(file, _LIMITS).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise AtelierError(f"{file} cannot be read: {error}.", "Save it as UTF-8 text.") from error
    for number, row in _json_lines(file, text) if file.suffix == ".jsonl" else _csv_rows(file, text):
        name = row.get("file_name")
        captions = next((texts for column in CAPTION_COLUMNS if (texts := _texts(row.get(column)))), ())
        if isinstance(name, str) and captions:
            yield _key(PurePosixPath(name.replace("\\", "/")).as_posix()), captions
        elif name is not None and not isinstance(name, str):
            raise AtelierError(f"{file}, line {number}: file_name is {name!r:.80}, which is no text.",
                               "Correct that line.")


def _json_lines(file: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line, _LIMITS)
        except ValueError as error:
            raise AtelierError(f"{file}, line {number}, is not readable JSON: {error}.",
                               "Correct that line.") from error
        if not isinstance(row, dict):
            raise AtelierError(f"{file}, line {number}, is not a JSON object.", "Correct that line.")
        yield number, row


def _csv_rows(file: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise AtelierError(f"{file}, line {reader.line_num}, is not readable CSV: {error}.", "Correct it.") from error


def _texts(value: Any) -> tuple[str, ...]:
    """Captions of a cell, each on one line."""
    texts = value if isinstance(value, list) else [value]
    return tuple(line for text in texts if isinstance(text, str) and (line := " ".join(text.split())))


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name)
