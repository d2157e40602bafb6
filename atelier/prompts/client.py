"""A chat-completions client over the `openai` package, with retries and safeguards.

It adds to the package: interruptible waits, one timeout over connecting, sending and reading, a size limit on answers,
no redirects, no retry once the quota is exhausted, omission of parameters that a server does not know, and an allow
list of headers that holds whatever the environment says.
"""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import json
import random
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from ..errors import AtelierError, MissingPackage
from ..progress import Progress
from . import failures, interruptible
from .credentials import Credential, CredentialStore
from .endpoints import ENDPOINTS, LanguageModel

Message = dict[str, str]
ResponseFormat = dict[str, Any]

RETRIES = 3
"""Further tries after temporary errors and lost connections."""
CONNECT_TIMEOUT = 10.0
MAX_BYTES = 2_000_000
"""Limit of an answer's body; a prompt takes a thousandth of it."""
PLACEHOLDER = "set-by-atelier"
"""Passed to the `openai` package as key, so that it neither reads one from the environment nor can log ours."""
HEADERS = {"host", "accept", "accept-encoding", "connection", "content-type", "content-length", "transfer-encoding",
           "user-agent", "x-stainless-raw-response"}
"""Headers of the package that are sent; it reads the last one itself, to return the body unread."""
FORMAT_WORDS = ("response_format", "schema", "json", "structured output")
"""Most errors about the response format contain one of these."""
OPENAI_HEADERS = {"openai-organization", "openai-project"}
"""OpenAI organisation and project; sent to OpenAI only."""


@dataclass(frozen=True)
class Usage:
    """Tokens and cost of an answer; None is unknown."""

    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: float | None = None
    """Money: the service's own figure if it gives one, else tokens times the prices of the `LanguageModel`."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(_sum(self.tokens_in, other.tokens_in), _sum(self.tokens_out, other.tokens_out),
                     _sum(self.cost, other.cost))


NOTHING_USED = Usage(0, 0, 0.0)


@dataclass(frozen=True)
class Reply:
    """A model's raw answer, with keys masked."""

    text: str
    usage: Usage
    cut: bool
    """Whether the answer was truncated at `max_tokens`."""


class FormatRefused(AtelierError):
    """The server does not support the `response_format`; ask again with a simpler one."""


@dataclass(kw_only=True)
class ChatClient:
    """Asks one model. Remembers which parameters the server rejects.

    Args:
        llm: the model and its endpoint.
        credentials: resolves its key at the first question.
        progress: interrupts the wait.
        pause: seconds before the first retry; doubled each time, with jitter.
    """

    llm: LanguageModel
    credentials: CredentialStore = field(default_factory=CredentialStore)
    progress: Progress = field(default_factory=Progress)
    pause: float = 0.5
    _left_out: set[str] = field(default_factory=set)
    _renamed: dict[str, str] = field(default_factory=dict)

    @cached_property
    def credential(self) -> Credential:
        """The key, if it exists and may be sent to the model's address."""
        return self.credentials.get(self.llm.credential, self.llm.base_url)

    def ask(self, messages: Sequence[Message], seed: int, response_format: ResponseFormat | None = None) -> Reply:
        """The model's answer to `messages`.

        Raises:
            AtelierError: no key, or no answer; the message says why and holds no key.
            FormatRefused: the server refuses `response_format`.
        """
        _ = self.credential  # Report a missing key before starting anything.
        failure = None
        try:
            return interruptible.run(lambda: self._ask(messages, seed, response_format), self.progress.check)
        except AtelierError as error:
            failure = error
        # Raise without context: the package's own error holds the request with its headers.
        failure.__context__ = None
        raise failure

    async def _ask(self, messages: Sequence[Message], seed: int, response_format: ResponseFormat | None) -> Reply:
        try:
            import openai
        except ImportError:
            raise MissingPackage("openai", "Writing prompts with a language model") from None

        try:
            async with self._connection(openai) as connection:
                body = await self._post_with_retries(openai, connection, messages, seed, response_format)
        # The packages below raise these for unusable environments and addresses: a proxy that needs another
        # package, a missing certificate file, an invalid host name.
        except (ImportError, OSError, ValueError, RuntimeError, _transport(openai).InvalidURL,
                openai.OpenAIError) as error:
            raise failures.impossible(self.llm, self.credential.redact(_root(error))) from None
        return self._reply(body)

    async def _post_with_retries(self, openai: Any, connection: Any, messages: Sequence[Message], seed: int,
                         response_format: ResponseFormat | None) -> bytes:
        """The answer's body, requested again after temporary errors and lost connections."""
        tries = 0
        while True:
            try:
                return await asyncio.wait_for(self._post(connection, self._parameters(messages, seed,
                                                                                      response_format)),
                                              self.llm.timeout)
            except asyncio.TimeoutError:
                raise failures.timed_out(self.llm) from None
            except openai.APIStatusError as error:
                problem = failures.read(error, self.credential)
                if problem.status in (400, 422):
                    if self._adapt(problem, response_format):
                        continue
                    raise failures.explain(problem, self.llm) from None
                wait = failures.seconds_to_wait(problem, self._backoff(tries))
                if wait is None or tries == RETRIES:
                    raise failures.explain(problem, self.llm) from None
            except (openai.APIConnectionError, _transport(openai).HTTPError) as error:
                if tries == RETRIES:
                    raise failures.no_connection(self.llm, self.credential.redact(_root(error))) from None
                wait = self._backoff(tries)
            tries += 1
            await asyncio.sleep(wait)

    async def _post(self, connection: Any, parameters: Mapping[str, Any]) -> bytes:
        async with connection.chat.completions.with_streaming_response.create(**parameters) as response:
            body = bytearray()
            async for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise failures.unusable(self.llm, f"it is longer than {MAX_BYTES // 1000} kB")
            return bytes(body)

    def _connection(self, openai: Any) -> Any:
        async def only_known_headers(request: Any) -> None:
            allowed = HEADERS | (OPENAI_HEADERS if self.llm.base_url == ENDPOINTS["OpenAI"].base_url else set())
            for name in [name for name in request.headers if name.lower() not in allowed]:
                del request.headers[name]
            if self.credential.secret:
                request.headers["Authorization"] = f"Bearer {self.credential.secret}"

        # Proxies cannot reach a server on this machine, so ignore the environment for one, and verify it against the
        # system's certificates: public ones do not include it.
        local = {"trust_env": False, "verify": ssl.create_default_context()} if _on_this_machine(self.llm) else {}
        http_client = openai.DefaultAsyncHttpxClient(follow_redirects=False, **local,
                                                     event_hooks={"request": [only_known_headers]})
        # The package's timeout restarts with each byte; `_post_with_retries` limits the whole request.
        return openai.AsyncOpenAI(api_key=PLACEHOLDER, base_url=self.llm.base_url, max_retries=0,
                                  timeout=openai.Timeout(None, connect=CONNECT_TIMEOUT), http_client=http_client)

    def _parameters(self, messages: Sequence[Message], seed: int,
                    response_format: ResponseFormat | None) -> dict[str, Any]:
        wanted: dict[str, Any] = {
            "temperature": self.llm.temperature,
            "seed": seed % 2**31,
            # OpenAI's reasoning models accept only the new name, most other servers only the old one.
            "max_completion_tokens" if "api.openai.com" in self.llm.base_url else "max_tokens": self.llm.max_tokens,
        }
        if response_format is not None:
            wanted["response_format"] = response_format
        parameters = {self._renamed.get(name, name): value for name, value in wanted.items()}
        return {"model": self.llm.model, "messages": list(messages),
                **{name: value for name, value in parameters.items() if name not in self._left_out}}

    def _adapt(self, problem: failures.Problem, response_format: ResponseFormat | None) -> bool:
        """Rename or omit the parameter that the server rejected; False if it named none that can be changed.

        Raises:
            FormatRefused: the error is about the response format, or names no parameter.
        """
        complaint = f"{problem.parameter} {problem.text}"
        # Errors about anything contain the words "model" and "messages".
        sent = [name for name in self._parameters([], 0, response_format) if name not in ("model", "messages")]
        named = [name for name in sent if re.search(rf"\b{name}\b", complaint)]
        for name in named:
            other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}.get(name)
            if other and not self._renamed and other not in self._left_out:
                self._renamed[name] = other
                return True
            if name in ("temperature", "seed", "max_tokens", "max_completion_tokens"):
                self._left_out.add(name)
                return True
        about_format = any(word in complaint for word in FORMAT_WORDS)
        unclear = not named and problem.parameter not in ("model", "messages")
        if response_format is not None and (about_format or unclear):
            raise FormatRefused(f"{self.llm.model} takes no {response_format['type']}.", "Ask for plain text.")
        return False

    def _reply(self, body: bytes) -> Reply:
        try:
            answer = json.loads(body)
            choice = answer["choices"][0]
            message = choice["message"]
            text = _text(message.get("content"))
            refusal = message.get("refusal")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            start = self.credential.redact(body[:200].decode("utf-8", "replace"))
            raise failures.unusable(self.llm, f"it is no chat completion but begins with {start!r}") from None
        if refusal and not text:
            raise AtelierError(f"{self.llm.model} refused: {self.credential.redact(str(refusal))[:300]}",
                               "Word the idea differently or choose another model.")
        return Reply(self.credential.redact(text), self._usage(answer.get("usage")),
                     choice.get("finish_reason") == "length")

    def _usage(self, usage: Any) -> Usage:
        if not isinstance(usage, dict):
            return Usage()
        tokens_in, tokens_out = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
        cost = usage.get("cost")
        if isinstance(cost, (int, float)) and not isinstance(cost, bool):
            return Usage(tokens_in, tokens_out, float(cost))
        if tokens_in is None or tokens_out is None or not (self.llm.price_in or self.llm.price_out):
            return Usage(tokens_in, tokens_out)
        return Usage(tokens_in, tokens_out, (tokens_in * self.llm.price_in + tokens_out * self.llm.price_out) / 1e6)

    def _backoff(self, tries: int) -> float:
        # A separate generator: the global one belongs to the user's seed.
        return self.pause * 2**tries * random.Random().uniform(0.75, 1.25)


def _transport(openai: Any) -> Any:
    """The HTTP package under `openai`, whose errors can be raised while a body is read.

    `openai` moved from `httpx` to `httpx2` with version 3; its client is a subclass of the transport's in both.
    """
    transport = next(base for base in openai.DefaultAsyncHttpxClient.__mro__ if base.__name__ == "AsyncClient")
    return importlib.import_module(transport.__module__.partition(".")[0])


def _root(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def _on_this_machine(llm: LanguageModel) -> bool:
    host = urlsplit(llm.base_url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
        return address.is_loopback or address.is_unspecified
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _text(content: Any) -> str:
    """A message's text; some servers send a list of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part.get("type") == "text")


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _sum(a: Any, b: Any) -> Any:
    return None if a is None or b is None else a + b


def host_of(llm: LanguageModel) -> str:
    """The endpoint's host and port, for display."""
    return urlsplit(llm.base_url).netloc
