"""Write a positive prompt, a negative prompt and a title from an idea with a language model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import AtelierError
from . import budget, offline
from .answer_cache import AnswerCache
from .budget import TokenCounter
from .client import ChatClient, Message
from .examples import Example
from .fields import PromptFields, PromptStyle
from .picture_part import picture_part, text_part
from .request import PromptRequest, WrittenPrompt
from .structured import Question, Unusable, ask, object_schema, text_field

LONGEST_PROMPT = 2000
LONGEST_TITLE = 120

_STYLE_RULES = {
    PromptStyle.TAGS: "comma-separated tags: words and short phrases, the most important first, no full sentences",
    PromptStyle.SENTENCES: "one or two plain English sentences",
    PromptStyle.FIELDS: "short comma-separated tags, each in the field it belongs to; a field that does not apply "
                        "stays empty",
}


_LIKE_PICTURE = ("Write the prompt for a picture like this one: its subject, composition, light, colours and medium. "
                 "Where the idea below says otherwise, the idea counts.")


def write(request: PromptRequest, client: ChatClient, cache: AnswerCache | None = None,
          counter: TokenCounter | None = None, fall_back: bool = False) -> WrittenPrompt:
    """A prompt for `request`, written by the language model behind `client`.

    Args:
        request: the idea and its options.
        client: the language model.
        cache: cache of answers; None asks each time.
        counter: counts tokens as the text encoder does; without it they are estimated.
        fall_back: write offline if the model gives no usable answer; `WrittenPrompt.source` then says why.

    Raises:
        AtelierError: the model gives no usable answer and `fall_back` is off.
    """
    try:
        answer = ask(client, _question(request), request.seed, cache)
    except AtelierError as error:
        if not fall_back:
            raise
        return offline.write(request, counter, because=error.what.rstrip("."))
    positive, negative, title = answer.value
    source = client.name + (", from the cache" if answer.cached else "")
    short, short_negative = (budget.cut_to(text, request.budget, counter) for text in (positive, negative))
    return WrittenPrompt(positive=short, negative=short_negative, title=title, tokens=budget.count(short, counter),
                         cost=answer.usage, source=source,
                         cut=(short, short_negative) != (positive, negative))


def _question(request: PromptRequest) -> Question[tuple[str, str, str]]:
    parts = PromptFields.names() if request.prompt_style is PromptStyle.FIELDS else ["positive"]
    text = {"type": "string"}
    schema = object_schema(dict.fromkeys([*parts, "negative", "title"], text))
    return Question(_messages(request, list(schema["properties"])), schema, lambda answer: _read(request, answer),
                    name="prompt")


def _read(request: PromptRequest, answer: Mapping[str, Any]) -> tuple[str, str, str]:
    if request.prompt_style is PromptStyle.FIELDS:
        written = {name: text_field(answer, name, LONGEST_PROMPT, required=False) for name in PromptFields.names()}
        positive = PromptFields(**{**written, **request.fields.given()}).joined()
        if not positive:
            raise Unusable("every field is empty")
    else:
        positive = text_field(answer, "positive", LONGEST_PROMPT)
    return (positive, text_field(answer, "negative", LONGEST_PROMPT, required=False),
            text_field(answer, "title", LONGEST_TITLE))


def _messages(request: PromptRequest, keys: list[str]) -> list[Message]:
    advice = request.examples.advice if request.examples else ""
    limit = ""
    if request.budget:
        limit = f" Stay below {request.budget} tokens, about {request.budget * 2 // 3} words, in each."
    rules = (f"You write prompts for a text-to-image model. From the user's idea write a positive prompt as "
             f"{_STYLE_RULES[request.prompt_style]}; a negative prompt that names, as tags, what must not be seen "
             f"(never the idea itself, no \"no\" or \"without\"); and a title of two to six words for the "
             f"picture.{limit} Keep to what the idea says and add what makes it a picture: place, light, composition, "
             f"medium. Answer with one JSON object with the keys {', '.join(keys)}, all texts, and nothing else.")
    messages = [{"role": "system", "content": f"{rules} {advice}".strip()}]
    if request.examples and request.prompt_style is not PromptStyle.FIELDS:
        for example in request.examples.examples:
            messages += [{"role": "user", "content": example.idea},
                         {"role": "assistant", "content": _example_answer(example)}]
    return [*messages, {"role": "user", "content": _user_content(request)}]


def _user_content(request: PromptRequest) -> str | list[dict[str, Any]]:
    text = _user_message(request)
    if request.picture is None:
        return text
    return [text_part(f"{_LIKE_PICTURE}\n{text}".strip()), picture_part(request.picture)]


def _example_answer(example: Example) -> str:
    return json.dumps({"positive": example.positive, "negative": example.negative, "title": example.title},
                      ensure_ascii=False)


def _user_message(request: PromptRequest) -> str:
    lines = [request.idea.strip()]
    if request.style.strip():
        lines.append(f"Style: {request.style.strip()}")
    lines += [f"{name.capitalize()} (keep these words): {text}" for name, text in request.fields.given().items()]
    return "\n".join(lines)
