"""What servers refuse, and how a request changes so that they take it.

`RULES` is tried from top to bottom at each refusal. A change holds for all further requests of the same client. Every
rule takes something away, so a request is changed a few times at most.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from . import picture_part
from .problem import Problem

Parameters = dict[str, Any]
"""The body of a request: model, messages, and the rest."""
Found = tuple[str, Callable[[Parameters], Parameters]]
"""What a rule changes, in words and as a function."""

LIMITS = ("max_tokens", "max_completion_tokens")
"""The two names of the limit of an answer's tokens."""
OPTIONAL = ("temperature", "seed", *LIMITS)
"""Parameters that can be left out."""
FEWEST_TOKENS = 64
"""A limit of the answer below this is not tried: no prompt fits."""
MOST_CHANGES = 12

_BAD_REQUEST = frozenset({200, 400, 422})
"""Statuses of a refusal; 200 stands for an error that is sent as an answer without a status."""
_TEMPLATE_ERROR = _BAD_REQUEST | {413, 500, 501}
"""llama.cpp and others answer 500 where a chat template fails."""
_NO_SYSTEM = re.compile(r"system[' ]*(?:role|message|prompt|instruction)|role[^.]{0,40}'?system|developer instruction"
                        r"|'system'|roles? must alternate|only user and assistant|must start with a user"
                        r"|(?:unexpected|unknown) (?:message )?role")
_TOO_MANY = re.compile(r"context|too (?:large|long|high|many)|maximum|at most|less than or equal|range|exceed|<=")
_CONTEXT = re.compile(r"(?:context (?:length|window|size)\D{0,20}|<= ?)(\d+)")
_INPUT = re.compile(r"(\d+)\W{1,3}inputs?\W{1,3}tokens|(\d+) (?:tokens )?(?:in|from) the (?:input|messages|prompt)")
_LARGE_PICTURE = re.compile(r"(?:image|picture|pixel|payload|request entity|request body|content)[^.]{0,60}"
                            r"(?:too (?:large|big|many)|exceed|larger|maximum|limit)"
                            r"|(?:too (?:large|big)|exceed|maximum|limit)[^.]{0,60}(?:image|picture|pixel|payload)")
_STREAM_ONLY = re.compile(r"(?:only|must|need|please|require|enable|without)[^.]{0,40}\bstream|\bstream[^.]{0,40}"
                          r"(?:must|only|required|to be true)")
_FORMAT = re.compile(r"response_format|schema|json|structured output")
"""Most errors about the response format contain one of these."""


@dataclass(frozen=True)
class Change:
    """A change of all requests to a server."""

    rule: str
    what: str
    """What is different, in words that follow the model's name."""
    apply: Callable[[Parameters], Parameters]


def concession(problem: Problem, sent: Parameters, made: Sequence[Change]) -> Change | None:
    """The change of the request `sent` that answers the server's `problem`; None if there is none.

    Args:
        problem: why the server refused.
        sent: the request that was refused, with the changes `made` before.
        made: earlier changes.
    """
    if len(made) >= MOST_CHANGES:
        return None
    for rule in RULES:
        if problem.status in rule.statuses and not (rule.once and any(change.rule == rule.name for change in made)):
            found = rule.answer(problem, sent)
            if found is not None and found[1](sent) != sent:
                return Change(rule.name, *found)
    return None


@dataclass(frozen=True)
class _Rule:
    name: str
    statuses: frozenset[int]
    answer: Callable[[Problem, Parameters], Found | None]
    once: bool = False


def _fold_system(problem: Problem, sent: Parameters) -> Found | None:
    if not _NO_SYSTEM.search(f"{problem.parameter} {problem.text}"):
        return None
    return "system text in the first message", _folded


def _smaller_picture(problem: Problem, sent: Parameters) -> Found | None:
    if problem.status != 413 and not _LARGE_PICTURE.search(problem.text):
        return None
    return _halved(sent)


def _fewer_picture_tokens(problem: Problem, sent: Parameters) -> Found | None:
    """Pictures take tokens of the context; tried once the answer cannot be shorter."""
    return _halved(sent) if problem.too_long else None


def _halved(sent: Parameters) -> Found | None:
    side = picture_part.longest_side(sent["messages"]) // 2
    if side < picture_part.SMALLEST:
        return None
    return f"pictures of at most {side} pixels a side", lambda parameters: {
        **parameters, "messages": picture_part.limited(parameters["messages"], side)}


def _stream(problem: Problem, sent: Parameters) -> Found | None:
    if not (_STREAM_ONLY.search(problem.text) or problem.parameter == "stream"):
        return None
    return "as a stream", lambda parameters: {**parameters, "stream": True}


def _folded(parameters: Parameters) -> Parameters:
    messages = parameters["messages"]
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    others = [message for message in messages if message["role"] != "system"]
    if not system:
        return parameters
    if not others or others[0]["role"] != "user":
        return {**parameters, "messages": [{"role": "user", "content": system}, *others]}
    content = others[0]["content"]
    folded = (f"{system}\n\n{content}" if isinstance(content, str)
              else [picture_part.text_part(system), *content])
    first = {**others[0], "content": folded}
    return {**parameters, "messages": [first, *others[1:]]}


def _lower_limit(problem: Problem, sent: Parameters) -> Found | None:
    limit = next((sent[name] for name in LIMITS if name in sent), None)
    if limit is None or "token" not in problem.text or not _TOO_MANY.search(problem.text):
        return None
    lower = _room(problem.text.replace(",", ""), limit)
    if lower < FEWEST_TOKENS:
        return None
    return f"max_tokens lowered from {limit} to {lower}", lambda parameters: {
        **parameters, **{name: min(parameters[name], lower) for name in LIMITS if name in parameters}}


def _room(text: str, limit: int) -> int:
    """The tokens that an error leaves for an answer of which `limit` tokens were asked; half of them if it says none.

    Servers name the context's length and the input's, or the total, or only the longest answer.
    """
    numbers = [int(number) for number in re.findall(r"\d{1,9}", text)]
    context = _CONTEXT.search(text)
    if context is None:
        return max((number for number in numbers if FEWEST_TOKENS <= number < limit), default=limit // 2)
    stated = _INPUT.search(text)
    used = int(stated[1] or stated[2]) if stated else next((n for n in numbers if n + limit in numbers), 0)
    room = int(context[1]) - used
    return room if used and room < limit and "at least" not in text else min(limit, int(context[1])) // 2


def _rename_limit(problem: Problem, sent: Parameters) -> Found | None:
    for name, other in (LIMITS, LIMITS[::-1]):
        if name in sent and _names(problem, name):
            return f"{other} in place of {name}", lambda parameters, old=name, new=other: {
                (new if key == old else key): value for key, value in parameters.items()}
    return None


def _leave_out(problem: Problem, sent: Parameters) -> Found | None:
    for name in OPTIONAL:
        if name in sent and _names(problem, name):
            return f"without {name}", lambda parameters, left=name: {
                key: value for key, value in parameters.items() if key != left}
    return None


def _simpler_format(problem: Problem, sent: Parameters) -> Found | None:
    """From a JSON schema to any JSON to none: also where the error names no parameter at all."""
    if "response_format" not in sent:
        return None
    unclear = not problem.parameter.startswith(("model", "messages"))
    if not unclear and not _FORMAT.search(f"{problem.parameter} {problem.text}"):
        return None
    if sent["response_format"]["type"] == "json_schema":
        return "any JSON in place of a schema", lambda parameters: {
            **parameters, **({"response_format": {"type": "json_object"}} if "response_format" in parameters else {})}
    return "without response_format", lambda parameters: {
        key: value for key, value in parameters.items() if key != "response_format"}


def _names(problem: Problem, name: str) -> bool:
    return re.search(rf"\b{name}\b", f"{problem.parameter} {problem.text}") is not None


RULES = (
    _Rule("system role", _TEMPLATE_ERROR, _fold_system, once=True),
    _Rule("picture", _TEMPLATE_ERROR, _smaller_picture),
    _Rule("long answer", _TEMPLATE_ERROR, _lower_limit),
    _Rule("picture", _TEMPLATE_ERROR, _fewer_picture_tokens),
    _Rule("stream", _BAD_REQUEST, _stream, once=True),
    _Rule("name of the limit", _BAD_REQUEST, _rename_limit, once=True),
    _Rule("parameter", _BAD_REQUEST, _leave_out),
    _Rule("format", _BAD_REQUEST, _simpler_format),
)
"""Refusals in the order in which they are looked for: from those with words of their own to those without."""
