"""Write distinct prompts for filler pictures, spread over the chosen categories."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import AtelierError
from .answer_cache import AnswerCache
from .art_request import ArtRequest, category_in
from .client import NOTHING_USED, ChatClient, Usage
from .distinct import Distinct
from .structured import Question, Unusable, ask, object_schema, text_field
from .words import words

BATCH = 20
"""Prompts per request: with more, answers get long and one error costs more."""
LONGEST = 600


@dataclass(frozen=True)
class ArtPrompt:
    """One prompt and what it is about."""

    category: str
    subject: str
    text: str


@dataclass(frozen=True)
class ArtPrompts:
    """The requested number of distinct prompts, shuffled by the seed."""

    prompts: tuple[ArtPrompt, ...]
    cost: Usage
    source: str


def offline_prompts(request: ArtRequest) -> ArtPrompts:
    """Prompts from word lists: a subject is never drawn twice. Same request, same prompts, on every machine.

    Raises:
        AtelierError: a category has too few subjects.
    """
    draw = random.Random(f"art {request.seed}")
    return ArtPrompts(_mixed(_drawn(request.shares(), draw, Distinct()), draw), NOTHING_USED, "the offline writer")


def written_prompts(request: ArtRequest, client: ChatClient, cache: AnswerCache | None = None,
                    fall_back: bool = False) -> ArtPrompts:
    """Prompts by the language model behind `client`; duplicates are requested again.

    Args:
        request: number and categories.
        client: the language model.
        cache: cache of answers.
        fall_back: draw missing prompts offline; `ArtPrompts.source` then says so.

    Raises:
        AtelierError: the model gives no usable answer or keeps repeating itself, and `fall_back` is off.
    """
    seen, found, used = Distinct(), [], NOTHING_USED
    missing = request.shares()
    trouble = ""
    fruitless = turn = 0
    others: set[str] = set()  # categories that nobody asked for
    while any(missing.values()) and not trouble:
        try:
            answer = ask(client, _question(_portion(missing), [p.subject for p in found]), request.seed + turn, cache)
        except AtelierError as error:
            if not fall_back:
                raise
            trouble = error.what.rstrip(".")
            break
        turn += 1
        used += answer.usage
        others |= {prompt.category for prompt in answer.value if category_in(prompt.category, missing) is None}
        new = _new_ones(answer.value, missing, seen)
        found += new
        fruitless = 0 if new else fruitless + 1
        if fruitless == 3:
            trouble = f"{client.llm.model} repeats itself: it gave {len(found)} different prompts of {request.count}"
            if not found and others:
                trouble = (f"{client.llm.model} gave no prompt of the categories {', '.join(missing)}, but of "
                           f"{', '.join(sorted(others))[:200]}")
            if not fall_back:
                raise AtelierError(trouble, "Ask for fewer, choose other categories or another model, or let the "
                                            "offline writer fill in.")
    draw, source = random.Random(f"art {request.seed}"), client.name
    if trouble:
        written = len(found)
        found += _drawn(missing, draw, seen)
        source = f"{source} ({written}) and the offline writer ({len(found) - written}), because: {trouble}"
    return ArtPrompts(_mixed(found, draw), used, source)


def _drawn(shares: Mapping[str, int], draw: random.Random, seen: Distinct) -> list[ArtPrompt]:
    found: list[ArtPrompt] = []
    ways = words("ways")
    for category, share in shares.items():
        subjects = words("subjects")[category]
        taken = 0
        for subject in draw.sample(subjects, len(subjects)):
            if taken == share:
                break
            place, medium, light, colours = (draw.choice(options) for options in (
                words("places")[category], ways["medium"], ways["light"], ways["colours"]))
            text = f"{subject} {place}, {medium}, {light}, {colours}"
            if seen.add(subject, text):
                found.append(ArtPrompt(category, subject, text))
                taken += 1
        if taken < share:
            raise AtelierError(f"The offline writer knows {taken} different prompts of the category {category}, not "
                               f"{share}.", "Choose more categories, ask for fewer, or use a language model.")
    return found


def _mixed(prompts: Sequence[ArtPrompt], draw: random.Random) -> tuple[ArtPrompt, ...]:
    return tuple(draw.sample(list(prompts), len(prompts)))


def _portion(missing: Mapping[str, int]) -> dict[str, int]:
    """At most `BATCH` of the missing prompts, by category."""
    portion: dict[str, int] = {}
    for category, number in missing.items():
        taken = min(number, BATCH - sum(portion.values()))
        if taken:
            portion[category] = taken
    return portion


def _new_ones(answer: Sequence[ArtPrompt], missing: dict[str, int], seen: Distinct) -> list[ArtPrompt]:
    """The answer's prompts that are missing and distinct, under the request's categories; takes them off `missing`."""
    new = []
    for prompt in answer:
        category = category_in(prompt.category, missing)
        if category and missing[category] and seen.add(prompt.subject, prompt.text):
            missing[category] -= 1
            new.append(replace(prompt, category=category))
    return new


def _question(portion: Mapping[str, int], taken: Sequence[str]) -> Question[list[ArtPrompt]]:
    text = {"type": "string"}
    one = object_schema({"category": {"type": "string", "enum": list(portion)}, "subject": text, "prompt": text})
    wanted = ", ".join(f"{number} of {category}" for category, number in portion.items())
    content = f"Write {sum(portion.values())} prompts: {wanted}."
    if taken:
        content += f" These subjects are taken, use none of them: {', '.join(taken)}."
    return Question(
        [{"role": "system", "content":
            "You write prompts for a text-to-image model, each for a different work of art. A prompt is 8 to 25 words: "
            "the subject, a place or action, a medium, light and colours. No two prompts share a subject, and no "
            "subject is a variant of another. \"subject\" names it in one to three words. Answer with one JSON object "
            "with the key prompts, a list of objects with the keys category, subject and prompt, and nothing else."},
         {"role": "user", "content": content}],
        object_schema({"prompts": {"type": "array", "items": one}}), _read, name="prompts")


def _read(answer: Mapping[str, Any]) -> list[ArtPrompt]:
    entries = answer.get("prompts")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise Unusable('"prompts" is not a list of objects')
    return [ArtPrompt(text_field(entry, "category", 40).lower(), text_field(entry, "subject", 80),
                      text_field(entry, "prompt", LONGEST)) for entry in entries]
