"""Get a structured answer from any chat model.

Response formats are tried from strict to loose: a JSON schema that the server enforces, any JSON, instructions alone.
The answer is parsed tolerantly (thinking and code fences stripped, the object searched in the text). If it cannot be
used, the model gets one chance to repair it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..errors import AtelierError
from . import failures
from .answer_cache import AnswerCache
from .client import NOTHING_USED, ChatClient, FormatRefused, Message, Reply, Usage

T = TypeVar("T")

_log = logging.getLogger("atelier")

MAX_ANSWER = 40_000
"""Characters. The longest sensible answer, twenty art prompts, is a quarter of it."""

_THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_OPENING = re.compile(r"\{(?=\s*[\"}])")
_SURROGATES = re.compile("[\ud800-\udfff]")
"""Unpaired surrogates, which JSON can hold and UTF-8 files cannot."""
_TRAILING_COMMA = re.compile(r",(?=\s*[}\]])")


class Unusable(Exception):
    """An answer that lacks what was asked for; the text tells the model what to correct."""


@dataclass(frozen=True)
class Question(Generic[T]):
    """Messages, the JSON schema of the answer, and a function that reads it.

    `read` gets the decoded object and raises `Unusable` if a field is missing, of the wrong type, empty or too long.
    """

    messages: Sequence[Message]
    schema: dict[str, Any]
    read: Callable[[Mapping[str, Any]], T]
    name: str = "answer"


@dataclass(frozen=True)
class Answer(Generic[T]):
    """The value, its usage, and whether it came from the cache."""

    value: T
    usage: Usage
    cached: bool


def ask(client: ChatClient, question: Question[T], seed: int, cache: AnswerCache | None = None) -> Answer[T]:
    """The model's answer to `question`, from the cache if it was answered before.

    Raises:
        AtelierError: no answer, or none that can be used after one repair.
    """
    if cache is not None:
        stored = cache.load(client.llm, question.messages, question.schema, seed)
        if stored is not None:
            try:
                return Answer(question.read(find_object(stored)), NOTHING_USED, True)
            except Unusable:
                pass  # Written by another version of the pack: ask again.
    value, text, usage = _ask(client, question, seed)
    if cache is not None:
        try:
            cache.store(client.llm, question.messages, question.schema, seed, text)
        except (AtelierError, OSError, UnicodeError) as error:  # Keep the answer: it may have cost money.
            _log.warning("The answer of %s could not be kept for the next time: %s", client.llm.model, error)
    return Answer(value, usage, False)


def _ask(client: ChatClient, question: Question[T], seed: int) -> tuple[T, str, Usage]:
    formats: list[dict[str, Any] | None] = [
        {"type": "json_schema", "json_schema": {"name": question.name, "strict": True, "schema": question.schema}},
        {"type": "json_object"},
        None,
    ]
    messages = list(question.messages)
    used, problem = NOTHING_USED, ""
    for _attempt in range(2):
        reply, formats = _ask_in_first_format(client, messages, seed, formats)
        used += reply.usage
        try:
            if len(reply.text) > MAX_ANSWER:
                raise Unusable(f"it is {len(reply.text)} characters long")
            return question.read(find_object(reply.text)), reply.text, used
        except Unusable as error:
            problem = f"{error}" + (f" (it was cut at {client.llm.max_tokens} tokens)" if reply.cut else "")
            messages = [*question.messages, {"role": "assistant", "content": reply.text[:4000] or "(nothing)"},
                        {"role": "user", "content": f"That answer cannot be used: {error}. Answer again with one JSON "
                                                    f"object and nothing else."}]
    raise failures.unusable(client.llm, f"{problem}, and asking again did not help")


def _ask_in_first_format(client: ChatClient, messages: Sequence[Message], seed: int,
                         formats: list[dict[str, Any] | None]) -> tuple[Reply, list[dict[str, Any] | None]]:
    """The reply in the first format that the server accepts, and the formats from that one on."""
    while True:
        try:
            return client.ask(messages, seed, formats[0]), formats
        except FormatRefused:
            formats = formats[1:]


def find_object(text: str) -> Mapping[str, Any]:
    """The JSON object in a model's answer: the last one that decodes, as models think before they answer.

    Raises:
        Unusable: there is none.
    """
    text = _THINKING.sub("", text).strip()
    if not text:
        raise Unusable("it is empty")
    found = _last_object(text) or _last_object(_TRAILING_COMMA.sub("", text))
    if found is None:
        raise Unusable(f"it holds no JSON object but begins with {' '.join(text.split())[:80]!r}")
    return found


def _last_object(text: str) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = None
    decoder = json.JSONDecoder(strict=False)  # Line breaks inside texts are common and harmless.
    end = 0
    for opening in _OPENING.finditer(text):
        if opening.start() >= end:
            with suppress(ValueError, RecursionError):
                found, end = decoder.raw_decode(text, opening.start())
    return found


def text_field(answer: Mapping[str, Any], name: str, longest: int, required: bool = True) -> str:
    """One line of text from an answer's field; a list of texts counts as joined by commas.

    Raises:
        Unusable: it is missing, no text, empty though required, or longer than `longest` characters.
    """
    value = answer.get(name, "" if not required else None)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = ", ".join(value)
    if not isinstance(value, str):
        raise Unusable(f'"{name}" is missing' if value is None else f'"{name}" is not a text')
    value = " ".join(_SURROGATES.sub("", value).split())
    if required and not value:
        raise Unusable(f'"{name}" is empty')
    if len(value) > longest:
        raise Unusable(f'"{name}" is {len(value)} characters long, more than {longest}')
    return value


def object_schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON schema of an object with exactly these properties, in the strict form that servers enforce."""
    return {"type": "object", "properties": dict(properties), "required": list(properties),
            "additionalProperties": False}
