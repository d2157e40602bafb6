"""Tokenize texts for CLIP, and count the tokens that are cut off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import AtelierError

Tokenizer = Callable[[str], list[int]]
"""Returns a text's token ids between begin and end token, without truncation."""


@dataclass(frozen=True)
class TokenizedText:
    """A text's token ids as the model receives them."""

    ids: tuple[int, ...]
    """With begin and end token; at most the model's number of positions."""
    used: int
    """Tokens of the text itself among `ids`: at most 75 for most models, 246 for LongCLIP."""
    cut: int
    """Tokens of the text that were cut off."""


def tokenize(tokenizer: Tokenizer, text: str, positions: int) -> TokenizedText:
    """Cut `text` to a model with `positions` positions as CLIP's reference code does: the end token is kept.

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
    """The tokenizer from the model's own `folder`, else CLIP's standard one, which released models share.

    Raises:
        AtelierError: there are no such files, and the usual one is not installed.
    """
    from ..models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(folder=folder if folder is not None and _has_tokenizer(folder) else None)
    # Not verbose: `tokenize` cuts long texts, so no warning is needed.
    return lambda text: tokenizer(text, truncation=False, verbose=False)["input_ids"]


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or all((folder / f).is_file() for f in ("vocab.json", "merges.txt"))
