"""Columns of a table with pictures: filter its rows and build captions from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from ..errors import AtelierError

Row = Mapping[str, Any]

CAPTION_COLUMNS = ("caption", "captions", "text", "prompt", "description", "title")
"""Usual names of caption columns, likeliest first."""


@dataclass(frozen=True)
class Columns:
    """The columns of a data set. Methods raise an `AtelierError` that lists the existing columns or classes."""

    source: str
    """Name of the data set in error messages."""
    names: tuple[str, ...]
    pictures: tuple[str, ...]
    """Those of `names` that hold pictures."""
    classes: Mapping[str, list[str]]
    """Class names of each column of class numbers."""

    def image_column(self, wanted: str) -> str:
        """The picture column called `wanted`, or the first one where `wanted` is empty."""
        if not self.pictures or (wanted and wanted not in self.pictures):
            raise AtelierError(f"{self.source} has no column of pictures" + (f" called {wanted!r}." if wanted else "."),
                               f"Columns of pictures: {', '.join(self.pictures) or 'none'}; all columns: "
                               f"{', '.join(self.names)}.")
        return wanted or self.pictures[0]

    def filter(self, column: str, value: str) -> Callable[[Row], bool]:
        """A predicate over rows: whether the column's class (by name or number) or text equals `value`."""
        if not column:
            return lambda row: True
        self._check(column)
        if column not in self.classes:
            return lambda row: _plain(value) in {_plain(text) for text in _texts(row[column])}
        names = self.classes[column]
        numbers = [number for number, name in enumerate(names) if _plain(name) == _plain(value)]
        if not numbers and value.strip().isascii() and value.strip().isdigit() and int(value) < len(names):
            numbers = [int(value)]
        if not numbers:
            raise AtelierError(f"{column!r} of {self.source} has no class {value!r}.",
                               f"Its classes: {', '.join(names)}.")
        return lambda row: row[column] == numbers[0]

    def captions(self, template: str) -> Callable[[Row], list[str]]:
        """A function from a row to its captions: as many as the longest list of texts in the template's columns.

        In `{title|artwork}` the text after the bar is used where a row, or the whole data set, has no title.
        """
        template = template or self._usual_caption()
        try:
            parts = [(literal, None if field is None else _name(field, spec, conversion))
                     for literal, field, spec, conversion in Formatter().parse(template)]
        except ValueError as error:
            raise AtelierError(f"The caption template {template!r} cannot be read: {error}.",
                               "Write columns in braces, and {{ and }} for plain braces.") from error
        fields = {field for _, field in parts if field is not None}
        for field in fields:
            if "|" not in field:
                self._check(field)

        def captions_of(row: Row) -> list[str]:
            values = {field: self._values(row, field) for field in fields}
            count = max((len(texts) for texts in values.values()), default=1)

            def caption(number: int) -> str:
                texts = (literal + ("" if field is None else values[field][min(number, len(values[field]) - 1)])
                         for literal, field in parts)
                return "".join(texts).strip()

            return list(dict.fromkeys(map(caption, range(count))))

        return captions_of

    def _values(self, row: Row, field: str) -> list[str]:
        column, _, default = field.partition("|")
        value = row.get(column)
        if column in self.classes and isinstance(value, int):
            names = self.classes[column]
            known = 0 <= value < len(names)  # -1 stands for "no class"
            return [names[value].replace("_", " ") if known else default]
        return [text or default for text in _texts(value)] or [default]

    def _usual_caption(self) -> str:
        for name in CAPTION_COLUMNS:
            if name in self.names:
                return "{" + name + "}"
        raise AtelierError(f"{self.source} has no column that is usually a caption.",
                           f"Give a caption template over its columns: {', '.join(self.names)}.")

    def _check(self, column: str) -> None:
        if column not in self.names:
            raise AtelierError(f"{self.source} has no column {column!r}.", f"Its columns: {', '.join(self.names)}.")


def _name(field: str, spec: str | None, conversion: str | None) -> str:
    """Everything between the braces: here a column may be called `artist.name`, `0` or `date:year`."""
    return field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").replace("-", " ").casefold().split())
