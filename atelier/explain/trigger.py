"""Whether a word suits as the trigger of a LoRA: one token that the model has seldom met."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from ..errors import AtelierError
from .tokens import WORD_END, readable

RARE_FROM = 0.8
"""Share of the vocabulary before rare entries begin. Entries stand in the order in which byte-pair encoding merged
them, frequent ones first (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909)."""
SUGGEST_FROM = 0.9
SPECIAL = 2
"""The start and the end token, last in CLIP's vocabulary."""

_UNSPEAKABLE = re.compile(r"[b-df-hj-np-tv-xz]{3,4}")
"""Without vowels: an entry that is hardly a word of any language."""
_UNWANTED = {"fck"}


class Verdict(str, Enum):
    """What becomes of a word."""

    RARE = "one rare token"
    COMMON = "common"
    SEVERAL = "several tokens"


@dataclass(frozen=True, kw_only=True)
class TriggerCheck:
    """How a text encoder knows a word."""

    word: str
    verdict: Verdict
    pieces: tuple[str, ...]
    """The tokens as people write them; "…" where the word goes on."""
    ranks: tuple[int, ...]
    """Each token's place in the vocabulary, 1 for the first; high means rare."""
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
        """A few lines for a person."""
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
    """Judge a trigger word, or several words, by how they fall into tokens.

    "Common" means that every token is a whole word outside the rare end of the vocabulary.

    Args:
        word: As it will stand in captions.
        ids: Its tokens, without start and end.
        entries: The vocabulary's entries by number.
        norms: Euclidean norm of every entry's embedding, or nothing.
        suggestions: How many rare tokens to name.

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
    found = (entries[i].removesuffix(WORD_END) for i in range(len(entries) - SPECIAL - 1, -1, -1)
             if i >= SUGGEST_FROM * len(entries) and entries[i].endswith(WORD_END))
    return tuple([entry for entry in found if _UNSPEAKABLE.fullmatch(entry) and entry not in _UNWANTED][:count])


def warn_if_common(word: str, tokenize: Callable[[str], Sequence[int]], entries: Mapping[int, str]) -> str:
    """One line for a report when a trigger word is common; nothing when it is not, or there is none.

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
