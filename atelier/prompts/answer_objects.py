"""Find the object that was asked for in a model's answer, whatever is around it and however its keys are spelt."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from . import near_json

_THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_OPENING = re.compile(r"\{(?=\s*[\"}])|\[(?=\s*\{)")
_MOST_FAILURES = 200
"""Brackets that open nothing which can be decoded; bounds the work on a text full of them."""
_TRAILING_COMMA = re.compile(r",(?=\s*[}\]])")


def without_thinking(text: str) -> str:
    """The answer without what stands in `<think>`."""
    return _THINKING.sub("", text).strip()


def candidates(text: str, schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Objects in `text` that may be the answer, the likeliest first, with their keys named as in `schema`.

    JSON comes before what is nearly JSON, and later objects before earlier ones, as models think before they answer.
    """
    for value in _values(without_thinking(text)):
        for candidate in (value, *_inside(value)):
            fitted = _fitted(candidate, schema)
            if isinstance(fitted, dict):
                yield fitted


def _values(text: str) -> Iterator[Any]:
    with suppress(ValueError, RecursionError):
        inner = json.loads(text, strict=False)
        if isinstance(inner, str):  # encoded twice
            text = without_thinking(inner)
    yield from reversed(_decoded(text))
    yield from reversed(_decoded(_TRAILING_COMMA.sub("", text)))
    yield from reversed(near_json.values(text))
    if '\\"' in text:  # escaped as inside a text, but without the quotes around it
        yield from reversed(near_json.values(text.replace('\\"', '"')))


def _decoded(text: str) -> list[Any]:
    """The outermost JSON objects and lists of objects in `text`."""
    found = []
    decoder = json.JSONDecoder(strict=False)  # Line breaks inside texts are common and harmless.
    end = failures = 0
    for opening in _OPENING.finditer(text):
        if opening.start() < end:
            continue
        try:
            value, end = decoder.raw_decode(text, opening.start())
            found.append(value)
        except (ValueError, RecursionError):
            failures += 1
            if failures == _MOST_FAILURES:
                break
    return found


def _inside(value: Any) -> list[Any]:
    """What an object with a single key, or a list with a single entry, is wrapped around; a text is decoded."""
    parts = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(parts, list) or len(parts) != 1:
        return []
    inner = parts[0]
    if isinstance(inner, str):
        return _decoded(inner)
    return [inner, *_inside(inner)] if isinstance(inner, (dict, list)) else []


def _fitted(value: Any, schema: Mapping[str, Any]) -> Any:
    """`value` with the keys of its objects spelt as in `schema`; a bare list becomes the only list of the schema."""
    if schema.get("type") == "array" and isinstance(value, list):
        return [_fitted(entry, schema["items"]) for entry in value]
    properties = schema.get("properties", {})
    if isinstance(value, list) and len(properties) == 1:
        value = {next(iter(properties)): value}
    if not isinstance(value, dict):
        return value
    names = {_letters(name): name for name in properties}
    fitted: dict[str, Any] = {}
    for key, entry in value.items():
        letters = _letters(str(key))
        name = key if key in properties else names.get(letters) or names.get(letters.removesuffix("prompt"), key)
        if name == key or name not in value:
            fitted[name] = _fitted(entry, properties.get(name, {}))
    return fitted


def _letters(key: str) -> str:
    return re.sub(r"[^a-z]", "", key.lower())
