"""Captions: templates, the trigger word, and shuffled variants."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from dataclasses import replace
from string import Formatter

from ..errors import AtelierError
from .types import TrainingSet

TEMPLATE_FIELDS = ("stem", "trigger", "folder")
"""Fields of a caption template: the file's name without its ending, the trigger word, the name of its folder."""


def check_template(template: str) -> None:
    """Raise unless `template` is text with fields of `TEMPLATE_FIELDS` in braces.

    Raises:
        AtelierError: an unknown field or an unpaired brace; the message names the allowed fields.
    """
    allowed = "Use " + ", ".join("{" + name + "}" for name in TEMPLATE_FIELDS) + "; write {{ and }} for plain braces."
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise AtelierError(f"The caption template {template!r} cannot be read: {error}.", allowed) from error
    for _, name, spec, conversion in parts:
        if name is not None and (name not in TEMPLATE_FIELDS or spec or conversion):
            field = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise AtelierError(f"The caption template {template!r} holds the unknown field {{{field}}}.", allowed)


def fill_template(template: str, fields: Mapping[str, str]) -> str:
    """The caption of one picture, without the spaces that an empty field leaves at its ends."""
    return template.format_map(fields).strip()


def with_trigger(caption: str, trigger: str) -> str:
    """Prepend the trigger word and a comma to `caption`, unless the caption already contains it as a word.

    Otherwise a LoRA would record a trigger word that it was never trained on.
    """
    if not trigger or re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", caption, re.IGNORECASE):
        return caption
    return f"{trigger}, {caption}" if caption else trigger


def with_class(caption: str, trigger: str, word: str) -> str | None:
    """`caption` with the class word in the trigger's place: "ohwx in the snow" and "ohwx dog in the snow" both become
    "dog in the snow". None where the caption does not contain the trigger as a word, or there is none."""
    if not trigger or not word:
        return None
    changed, count = re.subn(rf"(?<!\w){re.escape(trigger)}(?:\s+{re.escape(word)})?(?!\w)", lambda _: word, caption,
                             flags=re.IGNORECASE)
    return changed if count else None


def class_captions(data: TrainingSet, word: str) -> list[str]:
    """What `with_class` makes of the captions of a training set, each once."""
    found = (with_class(caption, data.trigger, word) for sample in data.samples for caption in sample.captions)
    return list(dict.fromkeys(caption for caption in found if caption is not None))


def typical_caption(data: TrainingSet) -> str:
    """The caption of the first picture that is trained on as one line, to try a LoRA with; empty where it has none."""
    return " ".join(next((sample.captions[0] for sample in data.samples if not sample.prior), "").split())


_DRAWS = 50
"""Tries for each variant with tags left out: most repeat each other where a caption has few tags."""


def variants(caption: str, count: int, keep_tokens: int, seed: int, tag_dropout: float = 0.0) -> tuple[str, ...]:
    """Up to `count` different orders of a comma-separated caption, itself first.

    With `tag_dropout` every other variant also leaves out each of its free parts with that probability, but never all
    parts of a caption.

    The first `keep_tokens` parts stay in place. The same arguments give the same variants on every machine. Fewer
    than `count` are returned where fewer exist: a sentence without commas has one.
    """
    parts = [part.strip() for part in caption.split(",") if part.strip()]
    kept, free = parts[:keep_tokens], parts[keep_tokens:]
    orders = math.factorial(len(free)) // math.prod(math.factorial(free.count(part)) for part in set(free))
    if tag_dropout:
        return _with_dropout(caption, kept, free, count, random.Random(f"{seed}/{keep_tokens}/{tag_dropout}/{caption}"),
                             tag_dropout)
    rng = random.Random(f"{seed}/{keep_tokens}/{caption}")
    # Keyed by the parts, because the caption itself may have other spacing around its commas.
    orderings = {tuple(free): caption}
    while len(orderings) < min(count, orders):
        rng.shuffle(free)
        orderings.setdefault(tuple(free), ", ".join(kept + free))
    return tuple(orderings.values())


def _with_dropout(caption: str, kept: list[str], free: list[str], count: int, rng: random.Random,
                  share: float) -> tuple[str, ...]:
    found = {caption: None}
    for _ in range(_DRAWS * count):
        if len(found) >= count:
            break
        parts = kept + rng.sample(left := [part for part in free if rng.random() >= share], len(left))
        if parts:
            found.setdefault(", ".join(parts))
    return tuple(found)


def with_variants(data: TrainingSet, count: int, keep_tokens: int, seed: int, tag_dropout: float = 0.0) -> TrainingSet:
    """The same training set with up to `count` variants of each caption (see `variants`), for tag shuffling and tag
    dropout.

    The cache then holds an embedding of each, and the trainer picks one at every use.
    """
    if count <= 1:
        return data
    samples = tuple(
        replace(sample, captions=tuple(dict.fromkeys(
            variant for caption in sample.captions
            for variant in variants(caption, count, keep_tokens, seed, tag_dropout))))
        for sample in data.samples)
    return replace(data, samples=samples)
