"""Check whether a word is a good trigger for a LoRA: a single, rare token."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from ..errors import AtelierError
from .tokens import WORD_END, readable

RARE_FROM = 0.8
"""Entries above this share of the vocabulary are rare: byte-pair encoding adds frequent entries first (Sennrich et al.
2016, https://arxiv.org/abs/1508.07909)."""
SUGGEST_FROM = 0.9
SPECIAL = 2
"""Number of special tokens (start and end) at the end of CLIP's vocabulary."""

_CONSONANTS = re.compile(r"[b-df-hj-np-tv-xz]{3,4}")
"""Without vowels: hardly a word of any language."""
_UNWANTED = {"fck"}


class Verdict(str, Enum):
    """How a word is tokenized."""

    RARE = "one rare token"
    COMMON = "common"
    SEVERAL = "several tokens"


@dataclass(frozen=True, kw_only=True)
class TriggerCheck:
    """The result of checking a trigger word."""

    word: str
    verdict: Verdict
    pieces: tuple[str, ...]
    """The tokens as readable text; "…" where the word continues."""
    ranks: tuple[int, ...]
    """Each token's index in the vocabulary plus 1; high means rare."""
    vocabulary: int
    """Entries in the vocabulary."""
    suggestions: tuple[str, ...]
    """Rare single tokens, rarest first. Some are abbreviations: a picture made with the bare word shows what it means
    to the model."""
    norms: tuple[float, ...] = ()
    """Euclidean norm of each token's embedding, where the embeddings are known."""
    mean_norm: float = 0.0
    """The same, mean over the vocabulary."""

    def text(self) -> str:
        """A short report."""
        share = f"rank {', '.join(map(str, self.ranks))} of {self.vocabulary}"
        lines = [f"{self.word}: {self.verdict.value}", f"tokens: {' | '.join(self.pieces)} ({share})",
                 _MEANING[self.verdict]]
        if self.norms:
            lines.append(f"embedding norm: {', '.join(f'{norm:.3f}' for norm in self.norms)}; "
                         f"mean of the vocabulary {self.mean_norm:.3f}")
        return "\n".join([*lines, f"rare single tokens: {', '.join(self.suggestions)}"])


_MEANING = {
    Verdict.RARE: "Good as a trigger: the model hardly knows it.",
    Verdict.COMMON: "The model knows this well: what it means today mixes with what you teach. Take a rarer word.",
    Verdict.SEVERAL: "Works as a trigger, but each part brings a meaning of its own; one rare token is cleaner.",
}


def check_trigger(word: str, ids: Sequence[int], entries: Mapping[int, str], norms: Sequence[float] = (),
                  suggestions: int = 8) -> TriggerCheck:
    """Check a trigger of one or several words by its tokens.

    "Common" means that every token is a whole word outside the rare end of the vocabulary.

    Args:
        word: The trigger as used in captions.
        ids: Its tokens, without start and end.
        entries: Vocabulary entries by index.
        norms: Euclidean norm of every entry's embedding; empty if unknown.
        suggestions: Number of rare tokens to suggest.

    Raises:
        AtelierError: the word is empty.
    """
    if not ids:
        raise AtelierError(f"{word!r} holds no word.", "Type the trigger word, such as ohwx.")
    whole = [entries[i].endswith(WORD_END) for i in ids]
    rare = [i >= RARE_FROM * len(entries) for i in ids]
    if len(ids) == 1 and whole[0] and rare[0]:
        verdict = Verdict.RARE
    elif all(whole) and not any(rare):
        verdict = Verdict.COMMON
    else:
        verdict = Verdict.SEVERAL
    return TriggerCheck(
        word=word.strip(), verdict=verdict, pieces=tuple(readable(entries[i]) for i in ids),
        ranks=tuple(i + 1 for i in ids), vocabulary=len(entries), suggestions=rare_words(entries, suggestions),
        norms=tuple(norms[i] for i in ids) if norms else (), mean_norm=sum(norms) / len(norms) if norms else 0.0)


def rare_words(entries: Mapping[int, str], count: int) -> tuple[str, ...]:
    """Single tokens of three or four consonants from the rare end of the vocabulary, rarest first."""
    candidates = (entries[i].removesuffix(WORD_END) for i in range(len(entries) - SPECIAL - 1, -1, -1)
             if i >= SUGGEST_FROM * len(entries) and entries[i].endswith(WORD_END))
    return tuple([entry for entry in candidates if _CONSONANTS.fullmatch(entry) and entry not in _UNWANTED][:count])


def warn_if_common(word: str, tokenize: Callable[[str], Sequence[int]], entries: Mapping[int, str]) -> str:
    """A one-line warning if a trigger word is common; otherwise empty.

    Args:
        tokenize: A text's tokens, without start and end.
    """
    if not word.strip():
        return ""
    check = check_trigger(word, tokenize(word), entries)
    if check.verdict is not Verdict.COMMON:
        return ""
    return (f"The trigger {check.word!r} is a common word (rank {', '.join(map(str, check.ranks))} of "
            f"{check.vocabulary}): its old meaning mixes with what is learnt. Rarer: {', '.join(check.suggestions)}.")
