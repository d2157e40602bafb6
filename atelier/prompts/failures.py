"""Errors of a language model's endpoint: decide whether to retry, and explain them."""

from __future__ import annotations

import email.utils
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..errors import AtelierError
from .credentials import Credential
from .endpoints import NO_CREDENTIAL, LanguageModel

LONGEST_WAIT = 60.0
"""Seconds. If a server asks for a longer wait, the user is told instead."""
RETRIED = {408, 409, 425, 429}
OUT_OF_QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient credits",
                "insufficient balance")


@dataclass(frozen=True)
class Problem:
    """An error response, with keys masked."""

    status: int
    text: str
    """Its message, code and type in lower case, for searching."""
    shown: str
    """Its message, for display."""
    parameter: str
    """The rejected field of the request; empty if not named."""
    retry_after: float | None
    """Seconds to wait as requested by the server."""

    @property
    def out_of_quota(self) -> bool:
        """Whether the quota is exhausted, so that waiting does not help."""
        return self.status == 402 or any(word in self.text for word in OUT_OF_QUOTA)


def read(error: Any, credential: Credential) -> Problem:
    """A `Problem` from the `openai` package's `APIStatusError`."""
    shown = " ".join(credential.redact(_message(error.body) or str(error.message)).split())[:300]
    words = " ".join(str(word) for word in (shown, error.code, error.type) if word).lower()
    return Problem(error.status_code, words, shown, str(error.param or "").lower(),
                   _retry_after(error.response.headers))


def seconds_to_wait(problem: Problem, backoff: float) -> float | None:
    """Seconds to wait before a retry; None if a retry cannot help."""
    if problem.out_of_quota or not (problem.status in RETRIED or problem.status >= 500):
        return None
    if problem.retry_after is None:
        return backoff
    return problem.retry_after if problem.retry_after <= LONGEST_WAIT else None


def explain(problem: Problem, llm: LanguageModel) -> AtelierError:
    """The error for the user, with what to do about it."""
    what = f"{llm.model} at {llm.base_url} answered {problem.status}: {problem.shown}"
    if problem.out_of_quota:
        return AtelierError(what, "The account's quota is used up: top it up, or choose another model or endpoint.")
    if problem.status in (401, 403):
        if llm.credential == NO_CREDENTIAL:
            return AtelierError(what, "The endpoint wants a key: choose a credential.")
        return AtelierError(what, f"Check the key that {llm.credential} holds, and that it may use this model.")
    if problem.status == 404:
        return AtelierError(what, "Check the model's name (with Ollama: `ollama pull` it first) and the address.")
    if problem.status in (301, 302, 303, 307, 308):
        return AtelierError(what, "Type the address the server redirects to; redirects are not followed with a key.")
    if problem.status == 429 and problem.retry_after is not None:
        return AtelierError(what, f"The server asks to wait {problem.retry_after:.0f} seconds: try again then.")
    if problem.status in RETRIED or problem.status >= 500:
        return AtelierError(what, "It was asked several times: try again later, or choose another model.")
    return AtelierError(what, "Change the model or its settings.")


def timed_out(llm: LanguageModel) -> AtelierError:
    """The error for a request that timed out."""
    return AtelierError(f"{llm.model} at {llm.base_url} did not answer within {llm.timeout:g} seconds.",
                        "Raise the timeout, choose a smaller model, or check that the server is not stuck.")


def no_connection(llm: LanguageModel, reason: str) -> AtelierError:
    """The error for a connection that failed or was lost."""
    return AtelierError(f"The connection to {llm.base_url} failed: {reason[:200].rstrip('.')}.",
                        "Check the address, the network, and that a local server (Ollama, LM Studio) is running.")


def impossible(llm: LanguageModel, reason: str) -> AtelierError:
    """The error for a request that could not be sent."""
    return AtelierError(f"{llm.base_url} could not be asked: {reason[:200].rstrip('.')}.",
                        "Check the address, and the environment's HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY and "
                        "SSL_CERT_FILE.")


def unusable(llm: LanguageModel, why: str) -> AtelierError:
    """The error for an answer that cannot be parsed."""
    return AtelierError(f"The answer of {llm.model} at {llm.base_url} cannot be used: {why}.",
                        "Try another seed or model, or check that the address speaks OpenAI's chat completions.")


def _message(body: Any) -> str:
    """The message in an error's body: OpenAI's own shape, the same in a list (Gemini), or any other as JSON."""
    if isinstance(body, list) and body:
        body = body[0]
    if isinstance(body, dict):
        inner = body.get("error", body)
        message = inner.get("message") if isinstance(inner, dict) else inner
        return message if isinstance(message, str) else json.dumps(body, ensure_ascii=False)
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
