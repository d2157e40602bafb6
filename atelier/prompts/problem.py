"""What went wrong at a language model's endpoint, read from an error response or from an error inside an answer."""

from __future__ import annotations

import email.utils
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from .credentials import Credential

LONGEST_WAIT = 60.0
"""Seconds. If a server asks for a longer wait, the user is told instead."""
RETRIED = {408, 409, 425, 429}
OUT_OF_QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient credits",
                "insufficient balance")
FILTERED = ("content_filter", "content management policy", "responsibleaipolicy", "content_policy",
            "data_inspection_failed", "safety system", "was flagged")
"""What the errors of content filters contain."""
_BLIND = re.compile(r"(?:image|vision|multi-?modal)[^.]{0,60}"
                    r"(?:not (?:currently )?support|unsupported|only supported|not enabled)"
                    r"|(?:not support|no endpoints found that support|does not (?:accept|have|take)|cannot see)"
                    r"[^.]{0,40}(?:image|vision|multi-?modal)|not a multi-?modal model|unknown variant `?image_url"
                    r"|image input is not supported|missing data required for image input")
_OTHER_MATTER = re.compile(r"too (?:large|big|many)|larger|exceed|size|bytes|dimension|pixel|format|mime|schema|json"
                           r"|temperature|seed|token|stream|system")
"""Words of errors about one picture, or about another part of the request."""
_LOADING = re.compile(r"\b(?:loading|being loaded|warming up|starting up)\b")
_SHOWN = 300
"""Characters of a server's message that are displayed."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An error response, with keys masked."""

    status: int
    text: str
    """Its message, code and type in lower case, for searching."""
    shown: str
    """Its message, for display."""
    parameter: str
    """The rejected field of the request; empty if not named."""
    retry_after: float | None = None
    """Seconds to wait as requested by the server."""
    location: str = ""
    """The address of a redirect; empty if there is none, or if it holds the key."""

    @property
    def filtered(self) -> bool:
        """Whether a content filter refused the question, so that asking again does not help."""
        return any(word in f"{self.parameter} {self.text}" for word in FILTERED)

    @property
    def blind(self) -> bool:
        """Whether the model takes no pictures at all, if the question has one, so that asking again does not help."""
        return self.status < 500 and _BLIND.search(self.text) is not None and _OTHER_MATTER.search(self.text) is None

    @property
    def loading(self) -> bool:
        """Whether a server on the way to be ready asks for patience."""
        return self.status == 503 and _LOADING.search(self.text) is not None and "fail" not in self.text

    @property
    def too_long(self) -> bool:
        """Whether question and answer do not fit into the model's context."""
        return "context" in self.text and self.status in (200, 400, 413, 422, 500)

    @property
    def out_of_quota(self) -> bool:
        """Whether the quota is exhausted, so that waiting does not help."""
        return self.status == 402 or any(word in self.text for word in OUT_OF_QUOTA)


def read(error: Any, credential: Credential) -> Problem:
    """A `Problem` from the `openai` package's `APIStatusError`."""
    headers = error.response.headers
    location = headers.get("location", "")
    return _problem(error.status_code, _message(error.body) or str(error.message), (error.code, error.type),
                    error.param, credential, retry_after=_retry_after(headers),
                    location=location if credential.redact(location) == location else "")


def in_answer(error: Any, credential: Credential) -> Problem:
    """A `Problem` from an error that was sent under status 200; its own code counts as status if it is one."""
    inner = error if isinstance(error, dict) else {}
    code = inner.get("code") or inner.get("status")
    if isinstance(code, str) and code.isdigit():
        code = int(code)
    words = f"{code} {inner.get('type')}".lower()
    if not isinstance(code, int) or not 400 <= code < 600:
        code = 429 if "rate_limit" in words or "rate limit" in words else 200
    return _problem(code, _message({"error": error}), (words,), inner.get("param"), credential)


def _problem(status: int, message: str, words: Sequence[Any], parameter: Any, credential: Credential,
             **more: Any) -> Problem:
    message = " ".join(credential.redact(message).split())
    shown = message if len(message) <= _SHOWN else f"{message[:_SHOWN - 1]}…"
    text = " ".join(str(word) for word in (message[:2000], *words) if word).lower()
    return Problem(status=status, text=text, shown=shown, parameter=str(parameter or "").lower(), **more)


def seconds_to_wait(problem: Problem, backoff: float) -> float | None:
    """Seconds to wait before a retry; None if a retry cannot help."""
    if problem.out_of_quota or not (problem.status in RETRIED or problem.status >= 500):
        return None
    if problem.retry_after is None:
        return backoff
    return problem.retry_after if problem.retry_after <= LONGEST_WAIT else None


def _message(body: Any) -> str:
    """The message in an error's body: OpenAI's own shape, the same in a list (Gemini), or any other as JSON.

    OpenRouter's hold the text of the service behind it as `metadata.raw`.
    """
    if isinstance(body, list) and body:
        body = body[0]
    if isinstance(body, dict):
        inner = body.get("error", body)
        message = inner.get("message") if isinstance(inner, dict) else inner
        if not isinstance(message, str):
            return json.dumps(body, ensure_ascii=False)
        metadata = inner.get("metadata") if isinstance(inner, dict) else None
        raw = metadata.get("raw") if isinstance(metadata, dict) else None
        return f"{message}: {raw}" if isinstance(raw, str) and raw else message
    return body if isinstance(body, str) else ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from `retry-after-ms` or `Retry-After` (RFC 9110, 10.2.3: seconds or a date)."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after", "")
        if not value:
            return None
        if value.replace(".", "", 1).isdigit():
            return float(value)
        until = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=timezone.utc)
    return max(0.0, (until - datetime.now(timezone.utc)).total_seconds())
