"""Get a structured answer from any chat model.

A JSON schema is asked for, which the client simplifies for servers that enforce none. The answer is parsed tolerantly:
thinking is left out, the object searched in the text, and what is nearly JSON read. If the answer cannot be used, the
model gets one chance to repair it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..errors import AtelierError
from . import failures
from .answer_cache import AnswerCache
from .answer_objects import candidates, without_thinking
from .client import NOTHING_USED, ChatClient, Message, Usage

T = TypeVar("T")

_log = logging.getLogger("atelier")

MAX_ANSWER = 40_000
"""Characters. The longest sensible answer, twenty art prompts, is a quarter of it."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff]")
"""Control characters, and halves of characters, which JSON can hold and UTF-8 files cannot."""


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
    read_plain: Callable[[str], T] | None = None
    """Reads an answer without any object in it, as `read` does; None takes no such answer."""


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
                return Answer(read_answer(question, stored), NOTHING_USED, True)
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
    response_format = {"type": "json_schema",
                       "json_schema": {"name": question.name, "strict": True, "schema": question.schema}}
    messages = list(question.messages)
    used, problem = NOTHING_USED, ""
    for _attempt in range(2):
        reply = client.ask(messages, seed, response_format)
        used += reply.usage
        try:
            if len(reply.text) > MAX_ANSWER:
                raise Unusable(f"it is {len(reply.text)} characters long")
            return read_answer(question, reply.text), reply.text, used
        except Unusable as error:
            problem = f"{error}" + (f" (it was cut at {client.max_tokens} tokens)" if reply.cut else "")
            messages = [*question.messages, {"role": "assistant", "content": reply.text[:4000] or "(nothing)"},
                        {"role": "user", "content": f"That answer cannot be used: {error}. Answer again with one JSON "
                                                    f"object and nothing else."}]
    raise failures.unusable(client.llm, f"{problem}, and asking again did not help")


def read_answer(question: Question[T], text: str) -> T:
    """The value of the first object in a model's answer that holds what was asked for.

    Raises:
        Unusable: there is none; the text is about the likeliest object.
    """
    reason = None
    for candidate in candidates(text, question.schema):
        try:
            return question.read(candidate)
        except Unusable as error:
            reason = reason or error
    if reason is not None:
        raise reason
    text = without_thinking(text)
    if not text:
        raise Unusable("it is empty")
    if question.read_plain is not None and not text.startswith(("{", "[")):
        return question.read_plain(text)
    raise Unusable(f"it holds no JSON object but begins with {' '.join(text.split())[:80]!r}")


def plain_line(text: str) -> str:
    """The text in one line, without characters that cannot be printed."""
    return " ".join(_UNPRINTABLE.sub("", text).split())


def text_field(answer: Mapping[str, Any], name: str, longest: int, required: bool = True) -> str:
    """One line of text from an answer's field; a list of texts counts as joined by commas, null as an empty text.

    Raises:
        Unusable: it is missing, no text, empty though required, or longer than `longest` characters.
    """
    value = answer.get(name, "" if not required else None)
    if value is None and not required:
        value = ""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = ", ".join(value)
    if not isinstance(value, str):
        raise Unusable(f'"{name}" is missing' if value is None else f'"{name}" is not a text')
    value = plain_line(value)
    if required and not value:
        raise Unusable(f'"{name}" is empty')
    if len(value) > longest:
        raise Unusable(f'"{name}" is {len(value)} characters long, more than {longest}')
    return value


def object_schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON schema of an object with exactly these properties, in the strict form that servers enforce."""
    return {"type": "object", "properties": dict(properties), "required": list(properties),
            "additionalProperties": False}
