"""Texts as CLIP reads them: how many tokens, and how many of them do not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import AtelierError

Tokenizer = Callable[[str], list[int]]
"""Gives a text's token ids between a begin and an end token, never cut."""


@dataclass(frozen=True)
class TokenizedText:
    """A text's token ids as the model receives them."""

    ids: tuple[int, ...]
    """With begin and end token; at most the model's number of positions."""
    used: int
    """Tokens of the text itself among `ids`: at most 75 for most models, 246 for LongCLIP."""
    cut: int
    """Tokens of the text that did not fit and have no part in the score."""


def tokenize(tokenizer: Tokenizer, text: str, positions: int) -> TokenizedText:
    """Cut `text` to a model with `positions` positions the way CLIP was published: the end token always stays.

    Raises:
        AtelierError: the text holds nothing but space.
    """
    if not text.strip():
        raise AtelierError("A text to score against is empty.", "Give the prompt the pictures were made from.")
    ids = tokenizer(text)
    begin, *words, end = ids
    kept = words[:positions - 2]
    return TokenizedText(ids=(begin, *kept, end), used=len(kept), cut=len(words) - len(kept))


def clip_tokenizer(folder: Path | None) -> Tokenizer:
    """The tokenizer whose files lie in the model's own `folder`, else CLIP's usual one, which released models share.

    Raises:
        AtelierError: there are no such files, and the usual one is not installed.
    """
    from ..models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(folder=folder if folder is not None and _has_tokenizer(folder) else None)
    # Not verbose, or it would warn about texts longer than the model: they are cut later, and counted.
    return lambda text: tokenizer(text, truncation=False, verbose=False)["input_ids"]


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or all((folder / f).is_file() for f in ("vocab.json", "merges.txt"))
