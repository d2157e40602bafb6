"""Read the body of a chat completion: whole or streamed, with the answer in any of the places where servers put it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_REASONING = ("reasoning_content", "reasoning")
"""Where models that think put their thoughts; some servers put the whole answer there."""
_FILTERED = {"content_filter", "safety", "prohibited_content", "blocklist", "spii", "sensitive"}
"""Reasons for an end that mean a content filter: OpenAI's, Gemini's, Zhipu's."""


@dataclass(frozen=True)
class Completion:
    """A completion as the server sent it. Nothing in it is masked yet."""

    text: str
    refusal: str
    finish: str
    """Why the answer ends: "stop", "length", …"""
    usage: Any
    error: Any
    """An error that was sent in place of an answer, under status 200; else None."""

    @property
    def filtered(self) -> bool:
        """Whether a content filter ended the answer."""
        return self.finish.lower() in _FILTERED


def read(body: bytes) -> Completion:
    """The completion in a response's body.

    Raises:
        ValueError: it is none.
    """
    try:
        answer = _decoded(body)
        error = answer.get("error")
        if error:
            return Completion("", "", "", None, error)
        choice = answer["choices"][0]
        finish = str(choice.get("finish_reason") or "")
        message: Any = choice.get("message")
        if choice.get("error") or (message is None and finish.lower() in _FILTERED):
            return Completion("", "", finish, answer.get("usage"), choice.get("error"))
        if message is None:
            raise ValueError("a choice without a message")
        return Completion(_answer(message, finish), str(message.get("refusal") or ""), finish, answer.get("usage"),
                          None)
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("no chat completion") from error


def _answer(message: Mapping[str, Any], finish: str) -> str:
    """The content; without one, the arguments of a tool call, or what stands in place of the thoughts."""
    content = _text(message.get("content"))
    if content.strip():
        return content
    calls = [call["function"] for call in message.get("tool_calls") or []] + [message.get("function_call") or {}]
    for call in calls:
        arguments = call.get("arguments")
        if arguments:
            return arguments if isinstance(arguments, str) else json.dumps(arguments)
    # Thoughts that were cut hold drafts, not the answer.
    thoughts = "" if finish == "length" else next((message[name] for name in _REASONING if message.get(name)), "")
    return thoughts if isinstance(thoughts, str) and thoughts else content


def _text(content: Any) -> str:
    """A message's text; some servers send a list of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part.get("type") == "text")


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return _joined(body.decode("utf-8", "replace"))


def _joined(stream: str) -> dict[str, Any]:
    """The completion whose chunks are in `stream`: server-sent events, or one JSON object a line."""
    message: dict[str, Any] = {"content": "", **dict.fromkeys(_REASONING, ""), "refusal": ""}
    calls: dict[int, str] = {}
    usage = finish = None
    choices = 0
    for line in stream.splitlines():
        data = line.removeprefix("data:").strip()
        if not data or data == "[DONE]" or line.startswith((":", "event:", "id:", "retry:")):
            continue
        chunk = json.loads(data)
        if chunk.get("error"):
            return {"error": chunk["error"]}
        usage = chunk.get("usage") or usage
        for choice in (chunk.get("choices") or [])[:1]:
            choices += 1
            if choice.get("error"):
                return {"error": choice["error"]}
            finish = choice.get("finish_reason") or finish
            delta = choice.get("delta") or choice.get("message") or {}
            message["content"] += _text(delta.get("content"))
            for name in (*_REASONING, "refusal"):
                message[name] += delta.get(name) or ""
            for call in delta.get("tool_calls") or []:
                index = call.get("index") or 0
                calls[index] = calls.get(index, "") + (call["function"].get("arguments") or "")
    if not choices:
        raise ValueError("no chunk of a chat completion")
    message["tool_calls"] = [{"function": {"arguments": arguments}} for _, arguments in sorted(calls.items())]
    return {"choices": [{"message": message, "finish_reason": finish}], "usage": usage}
