"""The trainer's warning about a trigger word that is a common word."""

from __future__ import annotations

import logging
from functools import lru_cache

log = logging.getLogger("atelier")


def trigger_warning(trigger: str) -> str:
    """A line for the trainer's report if the trigger is a common word, which is also logged; else empty."""
    if not trigger.strip():
        return ""
    from ..atelier.explain.trigger import warn_if_common
    from ..atelier.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer()
    text = warn_if_common(trigger, lambda word: tokenizer(word, add_special_tokens=False).input_ids, _vocabulary())
    if text:
        log.warning(text)
    return text


@lru_cache(maxsize=1)
def _vocabulary() -> dict[int, str]:
    from ..atelier.models.tokenizer import load_tokenizer

    return {number: entry for entry, number in load_tokenizer().get_vocab().items()}
