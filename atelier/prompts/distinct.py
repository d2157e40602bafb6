"""Detect near-duplicate prompts: equal subjects, or mostly equal words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

MAX_OVERLAP = 0.6
"""Prompts are duplicates if the Jaccard index of their words is at least this (Jaccard 1901)."""

_STOP_WORDS = frozenset(["a", "an", "and", "as", "at", "by", "from", "in", "into", "is", "its", "of", "on", "or",
                         "over", "the", "their", "this", "to", "under", "with"])


def stems(text: str) -> frozenset[str]:
    """The words of `text` except stop words, in lower case and without plural endings."""
    return frozenset(_stem(word) for word in re.findall(r"[^\W\d_]+|\d+", text.lower()) if word not in _STOP_WORDS)


def _stem(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


@dataclass
class Distinct:
    """Collects prompts and rejects near-duplicates of earlier ones."""

    _subjects: list[frozenset[str]] = field(default_factory=list)
    _prompts: list[frozenset[str]] = field(default_factory=list)

    def add(self, subject: str, prompt: str) -> bool:
        """Add a prompt; False, without adding it, if its subject or most of its words repeat an earlier one.

        A subject repeats another if one's words include all of the other's: "snow leopard" and "a leopard".
        """
        words, about = stems(prompt), stems(subject)
        if not about or any(about <= other or other <= about for other in self._subjects):
            return False
        if any(len(words & other) >= MAX_OVERLAP * len(words | other) for other in self._prompts):
            return False
        self._subjects.append(about)
        self._prompts.append(words)
        return True


def repeats(pairs: Sequence[tuple[str, str]]) -> list[int]:
    """Indices of the (subject, prompt) pairs that repeat an earlier one."""
    seen = Distinct()
    return [index for index, (subject, prompt) in enumerate(pairs) if not seen.add(subject, prompt)]
