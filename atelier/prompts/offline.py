"""Write prompts without a language model: the idea, the fixed parts, and words drawn from lists by the seed."""

from __future__ import annotations

import random
import re

from ..errors import AtelierError
from . import budget
from .budget import TokenCounter
from .client import NOTHING_USED
from .fields import PromptStyle
from .request import PromptRequest, WrittenPrompt
from .words import words

NEGATIVE = "lowres, blurry, jpeg artifacts, bad anatomy, deformed, watermark, text"
"""Used where no example set gives the model's usual negative prompt."""
_LOWER_CASE_WORDS = {"a", "an", "and", "at", "by", "in", "of", "on", "or", "the", "to", "with", "wearing"}


def write(request: PromptRequest, counter: TokenCounter | None = None, because: str = "") -> WrittenPrompt:
    """A prompt made of the idea, the user's style and fields, and light, view and colour drawn by the seed.

    Same request, same prompt, on every machine. `because` is appended to `WrittenPrompt.source`. A reference picture is
    not looked at.

    Raises:
        AtelierError: there is a picture and no idea.
    """
    if not request.idea.strip():
        raise AtelierError("There is a picture and no idea, and the offline writer cannot see"
                           + (f" (it was to help out, because: {because})." if because else "."),
                           "Type an idea, or connect a Language Model that sees pictures.")
    draw = random.Random(f"write {request.seed}")
    given = request.fields.given()
    parts = [given.pop("medium", ""), request.idea.strip().rstrip("."), given.pop("subject", ""), *given.values(),
             request.style.strip()]
    parts += [draw.choice(words("ways")[kind]) for kind in ("light", "view", "colours")
              if {"light": "lighting"}.get(kind, kind) not in given]
    if request.examples:
        parts.append(request.examples.suffix)
    tags = ", ".join(part for part in parts if part)
    positive = f"{tags[0].upper()}{tags[1:]}." if request.prompt_style is PromptStyle.SENTENCES else tags
    negative = (request.examples.negative if request.examples else "") or NEGATIVE
    short, short_negative = (budget.cut_to(text, request.budget, counter) for text in (positive, negative))
    return WrittenPrompt(positive=short, negative=short_negative, title=title_of(request.idea),
                         tokens=budget.count(short, counter), cost=NOTHING_USED,
                         source="the offline writer" + (f", because: {because}" if because else ""),
                         cut=(short, short_negative) != (positive, negative))


def title_of(idea: str) -> str:
    """A title from the idea's first words, in title case."""
    title = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", idea)[:6]
    while len(title) > 1 and title[-1].lower() in _LOWER_CASE_WORDS:
        title.pop()
    return " ".join(word if index and word.lower() in _LOWER_CASE_WORDS else word[:1].upper() + word[1:]
                    for index, word in enumerate(title)) or "Untitled"
