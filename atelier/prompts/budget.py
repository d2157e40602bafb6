"""Count or estimate a prompt's tokens, and cut it to a token budget at a natural boundary."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

TokenCounter = Callable[[str], int]
"""Number of tokens of a text, without start and end tokens."""

_WORDS = re.compile(r"[^\W\d_]+|\d|[^\s\w]+|_")
_PIECES = re.compile(r"\s*(?:(?<!\d)[,;]|[,;](?!\d)|[，；、]|(?<=[.!?])\s+|(?<=[。！？]))")
"""The end of a piece: a comma or semicolon outside numbers, or the end of a sentence."""
_SPACES = re.compile(r"\s+")
_TRAILING = " ,;，；、"
"""Stripped from the end of a cut prompt."""
_BEYOND_LATIN = "\u0370"
_COSTS = (("\uf900", 2.8), ("\uac00", 2.0), ("\u3400", 2.8), ("\u0800", 2.0), (_BEYOND_LATIN, 4 / 3))
"""Tokens of a letter from this character on, measured with CLIP's tokenizer on Chinese, Korean, Japanese, Russian and
Greek prompts."""


@dataclass(frozen=True)
class TokenCount:
    """Tokens of a prompt."""

    number: int
    exact: bool
    """False for an estimate, made without the text encoder's own tokenizer."""

    def __str__(self) -> str:
        return f"{self.number} tokens" if self.exact else f"about {self.number} tokens (estimated)"


def count(text: str, counter: TokenCounter | None = None) -> TokenCount:
    """Tokens of `text`, by `counter` if there is one, else estimated."""
    return TokenCount(estimate(text), False) if counter is None else TokenCount(counter(text), True)


def estimate(text: str) -> int:
    """CLIP tokens of a text without its vocabulary: short English words are one token, long or rare ones more.

    The vocabulary has few words of other scripts; their letters are split into bytes, some merged in pairs.
    """
    return math.ceil(sum(_cost(word) for word in _WORDS.findall(text)))


def cut_to(text: str, budget: int, counter: TokenCounter | None) -> str:
    """`text` without its last pieces (tags, clauses, sentences) so that it takes at most `budget` tokens.

    A first piece that is too long by itself loses its last words, and a first word that is too long its last letters;
    one letter always stays. A budget of 0 cuts nothing.
    """
    if budget <= 0 or count(text, counter).number <= budget:
        return text
    text = text.strip().lstrip(_TRAILING)
    pieces, words = ([match.start() for match in ends.finditer(text)] for ends in (_PIECES, _SPACES))
    for ends in (pieces, words, range(1, len(text))):
        ends = [end for end in ends if text[:end].rstrip(_TRAILING)]
        fitting = bisect_right(ends, budget, key=lambda end: count(text[:end], counter).number)
        if fitting:
            return text[:ends[fitting - 1]].rstrip(_TRAILING)
    return text[:1]


def _cost(word: str) -> float:
    if not word.isalpha():
        return 1
    if max(word) < _BEYOND_LATIN:
        return 1 + (len(word) - 1) // 7
    return sum(next((cost for first, cost in _COSTS if letter >= first), 1 / 7) for letter in word)
