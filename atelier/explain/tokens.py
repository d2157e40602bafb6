"""Tables of a text's tokens: vocabulary index, weight, and which ones are beyond CLIP's 75."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..models.tokenizer import LENGTH, byte_symbols

CHUNK_TOKENS = LENGTH - 2
"""Tokens of a text that CLIP encodes at once, excluding start and end."""
WORD_END = "</w>"
"""CLIP's vocabulary marks entries that end a word with this."""


@dataclass(frozen=True)
class Token:
    """One token of a text, as a text encoder receives it."""

    id: int | None
    """Index in the vocabulary; None for a textual inversion's vector, which has none."""
    entry: str
    """Raw vocabulary entry."""
    weight: float
    """1 unless the text sets a weight."""
    chunk: int
    """Which group of at most 75 tokens it is encoded in, from 0."""

    @property
    def text(self) -> str:
        """The entry as readable text; ends in "…" if the word continues in the next token."""
        return readable(self.entry)


@dataclass(frozen=True)
class TokenTable:
    """The tokens of a text, without start, end and padding."""

    tokens: tuple[Token, ...]
    encoders: tuple[str, ...]
    """The text encoders that see these tokens."""

    @property
    def beyond(self) -> tuple[Token, ...]:
        """Tokens after the first chunk. ComfyUI encodes them separately; most other programs cut them off."""
        return tuple(token for token in self.tokens if token.chunk)

    @property
    def beyond_text(self) -> str:
        """The text beyond the first chunk; empty if there is none."""
        return joined(self.beyond)

    def table(self) -> str:
        """Aligned text: a line with the count, then one line a token."""
        names = ", ".join(self.encoders)
        count = f"{len(self.tokens)} tokens, {CHUNK_TOKENS} fit"
        head = f"{names}: {count}" + (f"; beyond them: {self.beyond_text}" if self.beyond else "")
        rows = [("#", "chunk", "id", "weight", "token"),
                *((str(number), str(t.chunk + 1), "–" if t.id is None else str(t.id), f"{t.weight:.4g}", t.text)
                  for number, t in enumerate(self.tokens, 1))]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return "\n".join([head, *("  ".join([*(cell.rjust(width) for cell, width in zip(row, widths, strict=False)),
                                             row[-1]]) for row in rows)])


def readable(entry: str) -> str:
    """An entry of CLIP's vocabulary as readable text, with "…" unless it ends a word.

    Bytes of an incomplete character are written as \\xf0.
    """
    return _decoded(entry.removesuffix(WORD_END)) + ("" if entry.endswith(WORD_END) else "…")


def joined(tokens: Sequence[Token]) -> str:
    """The text that tokens came from, in lower case and with one space between words."""
    words = "".join(token.entry for token in tokens).split(WORD_END)
    return " ".join(_decoded(word) for word in words if word)


def _decoded(symbols: str) -> str:
    codes = byte_symbols()
    if not all(symbol in codes for symbol in symbols):
        return symbols  # of a vocabulary that is not CLIP's
    return bytes(codes[symbol] for symbol in symbols).decode("utf-8", errors="backslashreplace")
