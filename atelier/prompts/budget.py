"""How many tokens of the text encoder a prompt takes, and cutting it to a budget at a natural place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

TokenCounter = Callable[[str], int]
"""Number of tokens of a text, without start and end marks."""

_WORDS = re.compile(r"[^\W\d_]+|\d|[^\s\w]+|_")
_PIECES = re.compile(r"\s*(?:[,;]\s+|(?<=[.!?])\s+)")


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
    """CLIP tokens of an English text without its vocabulary: short words are one token, long or rare ones more."""
    return sum(1 + (len(word) - 1) // 7 if word.isalpha() else 1 for word in _WORDS.findall(text))


def cut_to(text: str, budget: int, counter: TokenCounter | None = None) -> str:
    """`text` without its last pieces (tags, clauses, sentences) so that it takes at most `budget` tokens.

    A first piece that is too long by itself loses its last words. A budget of 0 cuts nothing.
    """
    if budget <= 0 or count(text, counter).number <= budget:
        return text
    ends = [match.start() for match in _PIECES.finditer(text)] or [0]
    for end in reversed(ends):
        if end and count(text[:end], counter).number <= budget:
            return text[:end].rstrip(" ,;")
    words = text[:ends[0] or len(text)].split()
    while len(words) > 1 and count(" ".join(words), counter).number > budget:
        words.pop()
    return " ".join(words).rstrip(" ,;")
