"""Turn a model's description into a caption: forbidden words, the trigger word in front, the limit in tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..prompts import budget
from ..prompts.budget import TokenCounter
from .request import CaptionRequest, CaptionStyle

_POLITE = r"(?:sure|certainly|of course|here is|here's)[^:\n]{0,60}:\s*"
_LEAD = re.compile(rf"^(?:{_POLITE})?(?:caption|description|tags)\s*:\s*|^{_POLITE}", re.IGNORECASE)
_QUOTES = {'"': '"', "'": "'", "“": "”", "«": "»", "`": "`"}


def has_word(text: str, word: str) -> bool:
    """Whether `text` holds `word` (or phrase) as a word of its own, in any case."""
    return _whole(word).search(text) is not None


def forbidden_in(text: str, words: Sequence[str]) -> list[str]:
    """Those of `words` that `text` holds."""
    return [word for word in words if has_word(text, word)]


def bare(text: str) -> str:
    """A description without what models put around it: "Caption:", quotes, markdown's stars."""
    text = _LEAD.sub("", text.strip().strip("*").strip()).strip()
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def tags_without(text: str, words: Sequence[str]) -> str:
    """Comma-separated tags without repeats and without those that hold one of `words`."""
    tags = (" ".join(tag.split()).strip(" .") for tag in re.split(r"[,;\n]", text))
    kept = {tag.lower(): tag for tag in tags if tag and not forbidden_in(tag, words)}
    return ", ".join(kept.values())


def caption(description: str, request: CaptionRequest, counter: TokenCounter | None = None) -> str:
    """The caption of a description that holds no forbidden word: with the trigger word in front, cut to the limit."""
    if request.trigger:
        description = (tags_without(description, [request.trigger]) if request.style is CaptionStyle.TAGS
                       else _without(description, request.trigger))
        description = f"{request.trigger}, {description}" if description else request.trigger
    return budget.cut_to(description, request.tokens, counter)


def _without(text: str, word: str) -> str:
    """`text` without each occurrence of `word`, and without the spaces and commas that would be left."""
    text = _whole(word).sub("", text)
    text = re.sub(r"\s+([,.;:!?])", r"\1", re.sub(r"\s{2,}", " ", text))
    return re.sub(r"([,;])(?:\s*[,;])+", r"\1", text).strip(" ,;")


def _whole(word: str) -> re.Pattern[str]:
    spaced = r"\s+".join(map(re.escape, word.split()))
    return re.compile(rf"(?<!\w){spaced}(?!\w)", re.IGNORECASE)
