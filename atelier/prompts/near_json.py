"""Read what models write when they mean JSON: other quotes, comments, missing commas and missing closing brackets.

Beyond JSON it takes single and typographic quotes, keys without quotes, Python's None, True and False, comments
(`//`, `#`, `/* */`), quotes inside texts, missing and superfluous commas, and an end without the last brackets. A text
that breaks off is refused: nobody knows how it went on.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

DEEPEST = 20
MOST_STARTS = 40
"""Brackets at which a value is looked for; bounds the work on a text full of them."""

_CLOSING = {'"': '"', "'": "'", "\N{LEFT DOUBLE QUOTATION MARK}": "\N{RIGHT DOUBLE QUOTATION MARK}",
            "\N{LEFT SINGLE QUOTATION MARK}": "\N{RIGHT SINGLE QUOTATION MARK}"}
_SPACE = re.compile(r"(?:\s+|//[^\n]*|#[^\n]*|/\*.*?\*/)*", re.DOTALL)
_AFTER_TEXT = re.compile(r"\s*(?:[,:}\]]|$|//|/\*|#|```|\n\s*[\"'\u201c\u2018\w])")
"""What follows the quote that ends a text; a quote before anything else belongs to the text."""
_WORD = re.compile(r"[A-Za-z_][\w-]*")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_CODES = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
_WORDS = {"null": None, "none": None, "true": True, "false": False}


class NotNearJson(ValueError):
    """The text at this place is not meant as JSON."""


def values(text: str) -> list[Any]:
    """The objects and lists in `text` that can be read, outermost ones, in order."""
    found, end, starts = [], 0, 0
    for opening in re.finditer(r"[{\[]", text):
        if opening.start() < end or starts == MOST_STARTS:
            continue
        starts += 1
        with suppress(ValueError):  # also of a number with thousands of digits
            reader = _Reader(text, opening.start())
            found.append(reader.value())
            end = reader.at
    return found


class _Reader:
    def __init__(self, text: str, at: int) -> None:
        self.text = text
        self.at = at
        self._depth = 0

    def value(self) -> Any:
        char = self._peek()
        if char in ("{", "["):
            self._depth += 1
            if self._depth > DEEPEST:
                raise NotNearJson("too deep")
            read = self._object() if char == "{" else self._list()
            self._depth -= 1
            return read
        if char in _CLOSING:
            return self._quoted()
        if number := _NUMBER.match(self.text, self.at):
            self.at = number.end()
            return json.loads(number[0]) if not re.match(r"-?0\d", number[0]) else number[0]
        word = self._word()
        if word.lower() not in _WORDS:
            raise NotNearJson(f"no value but {word!r}")
        return _WORDS[word.lower()]

    def _object(self) -> dict[str, Any]:
        read: dict[str, Any] = {}
        self.at += 1
        while not self._closed("}"):
            key = self._quoted() if self._peek() in _CLOSING else self._word()
            if self._peek() not in (":", "="):
                raise NotNearJson("a key without a value")
            self.at += 1
            read[key] = self.value()
        return read

    def _list(self) -> list[Any]:
        read = []
        self.at += 1
        while not self._closed("]"):
            read.append(self.value())
        return read

    def _closed(self, bracket: str) -> bool:
        """Pass commas; whether the bracket, or the end of the text in its place, is next. It is passed, too."""
        while self._peek() == ",":
            self.at += 1
        if self._peek() == bracket:
            self.at += 1
            return True
        # At the end of the text or of its code block, or at the bracket around this one: this one's is missing.
        return self._peek() in ("", "}", "]", "`") and self._depth > 0

    def _peek(self) -> str:
        space = _SPACE.match(self.text, self.at)
        assert space is not None
        self.at = space.end()
        return self.text[self.at:self.at + 1]

    def _word(self) -> str:
        word = _WORD.match(self.text, self.at)
        if word is None:
            raise NotNearJson("no word")
        self.at = word.end()
        return word[0]

    def _quoted(self) -> str:
        closing = _CLOSING[self.text[self.at]]
        parts: list[str] = []
        index = self.at + 1
        while index < len(self.text):
            char = self.text[index]
            if char == "\\":
                escape, index = _escape(self.text, index)
                parts.append(escape)
            elif char == closing and _AFTER_TEXT.match(self.text, index + 1):
                self.at = index + 1
                return "".join(parts)
            else:
                parts.append(char)
                index += 1
        raise NotNearJson("a text that breaks off")


def _escape(text: str, index: int) -> tuple[str, int]:
    """What the escape at `index` stands for, and where the text goes on; an unknown one stands for itself."""
    codes = _CODES.match(text, index)  # all of a run, as two halves make one character
    end = codes.end() if codes else index + 2
    with suppress(ValueError):
        return json.loads(f'"{text[index:end]}"'), end
    return text[index + 1:index + 2], index + 2
