"""Columns of a table with pictures: which rows are wanted, and what their captions say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from ..errors import AtelierError

Row = Mapping[str, Any]

CAPTION_COLUMNS = ("caption", "captions", "text", "prompt", "description", "title")
"""Names that columns of captions usually have, likeliest first."""


@dataclass(frozen=True)
class Columns:
    """The columns of a data set. Every method raises an `AtelierError` that lists what there is."""

    source: str
    """What errors call the data set."""
    names: tuple[str, ...]
    pictures: tuple[str, ...]
    """Those of `names` that hold pictures."""
    classes: Mapping[str, list[str]]
    """Class names of each column of class numbers."""

    def image_column(self, wanted: str) -> str:
        """The wanted column of pictures, or the first."""
        if not self.pictures or (wanted and wanted not in self.pictures):
            raise AtelierError(f"{self.source} has no column of pictures" + (f" called {wanted!r}." if wanted else "."),
                               f"Columns of pictures: {', '.join(self.pictures) or 'none'}; all columns: "
                               f"{', '.join(self.names)}.")
        return wanted or self.pictures[0]

    def filter(self, column: str, value: str) -> Callable[[Row], bool]:
        """A function that says whether a row is wanted: its class, by name or number, or its text."""
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
        """A function that gives a row's captions: one, or as many as the longest column of texts in the template.

        In `{title|artwork}` the words after the bar are written where a row, or the whole data set, has no title.
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

        def filled(row: Row) -> list[str]:
            values = {field: self._values(row, field) for field in fields}
            count = max((len(texts) for texts in values.values()), default=1)

            def caption(number: int) -> str:
                texts = (literal + ("" if field is None else values[field][min(number, len(values[field]) - 1)])
                         for literal, field in parts)
                return "".join(texts).strip()

            return list(dict.fromkeys(map(caption, range(count))))

        return filled

    def _values(self, row: Row, field: str) -> list[str]:
        column, _, instead = field.partition("|")
        value = row.get(column)
        if column in self.classes and isinstance(value, int):
            names = self.classes[column]
            known = 0 <= value < len(names)  # -1 stands for "no class"
            return [names[value].replace("_", " ") if known else instead]
        return [text or instead for text in _texts(value)] or [instead]

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
    """All that stands between the braces: here a column may be called `artist.name`, `0` or `date:year`."""
    return field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").replace("-", " ").casefold().split())
