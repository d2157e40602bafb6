"""A chat-completions client over the `openai` package, with retries and safeguards.

It adds to the package: interruptible waits, one timeout over connecting, sending and reading, a size limit on answers,
no redirects, no retry once the quota is exhausted, requests that change where a server refuses a part of them, patience
while a local server loads its model, and an allow list of headers that holds whatever the environment says.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import ssl
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from ..errors import AtelierError
from ..progress import Progress
from . import completion, failures, interruptible, picture_part
from . import problem as problems
from .concessions import LIMITS, Change, Parameters, concession
from .credentials import Credential, CredentialStore
from .endpoints import ENDPOINTS, LanguageModel
from .openai_package import openai_package, transport
from .problem import Problem

Message = dict[str, Any]
ResponseFormat = dict[str, Any]

_log = logging.getLogger("atelier")

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


@dataclass(kw_only=True)
class ChatClient:
    """Asks one model. Remembers what its server refuses, and changes further requests (see `concessions`).

    Several threads may ask at a time.

    Args:
        llm: the model and its endpoint.
        credentials: resolves its key at the first question.
        progress: interrupts the wait, and is told when a server loads its model.
        pause: seconds before the first retry; doubled each time, with jitter.
    """

    llm: LanguageModel
    credentials: CredentialStore = field(default_factory=CredentialStore)
    progress: Progress = field(default_factory=Progress)
    pause: float = 0.5
    _changes: list[Change] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _phase: str = ""
    """What is waited for; set in the waiting thread, reported from the caller's."""

    @cached_property
    def credential(self) -> Credential:
        """The key, if it exists and may be sent to the model's address."""
        return self.credentials.get(self.llm.credential, self.llm.base_url)

    @property
    def name(self) -> str:
        """The model and its host, for display, with the limit of an answer if the server takes no longer one."""
        lowered = [change.what for change in self._changes if change.rule == "long answer"]
        return f"{self.llm.model} at {host_of(self.llm)}" + (f" ({lowered[-1]})" if lowered else "")

    @property
    def max_tokens(self) -> int:
        """The limit of an answer's tokens, as lowered for the server."""
        parameters = self._parameters((), 0, None)
        return next((parameters[name] for name in LIMITS if name in parameters), self.llm.max_tokens)

    def ask(self, messages: Sequence[Message], seed: int, response_format: ResponseFormat | None = None) -> Reply:
        """The model's answer to `messages`, in `response_format` or the strictest simpler one that the server takes.

        Raises:
            AtelierError: no key, or no answer; the message says why and holds no key.
        """
        _ = self.credential  # Report a missing key before starting anything.
        failure = None
        try:
            return interruptible.run(lambda: self._ask(messages, seed, response_format), self._check)
        except AtelierError as error:
            failure = error
        # Raise without context: the package's own error holds the request with its headers.
        failure.__context__ = None
        raise failure

    def _check(self) -> None:
        self.progress.check()
        if self._phase:
            self.progress.phase(self._phase, 1)
            self._phase = ""

    async def _ask(self, messages: Sequence[Message], seed: int, response_format: ResponseFormat | None) -> Reply:
        openai = openai_package()
        try:
            async with self._connection(openai) as connection:
                return await self._post_with_retries(openai, connection, messages, seed, response_format)
        # The packages below raise these for unusable environments and addresses: a proxy that needs another
        # package, a missing certificate file, an invalid host name.
        except (ImportError, OSError, ValueError, RuntimeError, transport(openai).InvalidURL,
                openai.OpenAIError) as error:
            raise failures.impossible(self.llm, self.credential.redact(_root(error))) from None

    async def _post_with_retries(self, openai: Any, connection: Any, messages: Sequence[Message], seed: int,
                                 response_format: ResponseFormat | None) -> Reply:
        """The answer, requested again after temporary errors and lost connections, and in another form if refused."""
        clock = asyncio.get_running_loop().time
        tries, start = 0, clock()
        while True:
            parameters = self._parameters(messages, seed, response_format)
            wait: float | None = self._backoff(tries)
            try:
                body = await asyncio.wait_for(self._post(connection, parameters), self.llm.timeout)
                reply = self._reply(body)
                if isinstance(reply, Reply):
                    return reply
                problem = reply
            except asyncio.TimeoutError:
                raise failures.timed_out(self.llm) from None
            except openai.APIStatusError as error:
                problem = problems.read(error, self.credential)
            except (openai.APIConnectionError, transport(openai).HTTPError) as error:
                if tries == RETRIES:
                    raise failures.no_connection(self.llm, self.credential.redact(_root(error))) from None
                problem = None
            if problem is not None:
                if problem.filtered or (problem.blind and picture_part.longest_side(messages)):
                    raise failures.explain(problem, self.llm)
                if self._concede(problem, parameters, self._parameters(messages, seed, response_format)):
                    continue
                if problem.loading and clock() - start < self.llm.timeout:
                    self._phase = f"{host_of(self.llm)} is loading {self.llm.model}"
                    await asyncio.sleep(2 * self.pause)
                    continue
                wait = problems.seconds_to_wait(problem, wait)
                if wait is None or tries == RETRIES or problem.loading:
                    raise failures.explain(problem, self.llm)
            tries += 1
            await asyncio.sleep(wait)

    def _concede(self, problem: Problem, sent: Parameters, now: Parameters) -> bool:
        """Change further requests as the server's refusal wants it; False if it names nothing that can be changed.

        Args:
            problem: the refusal.
            sent: the request that was refused.
            now: the same request with what other threads have changed since.
        """
        with self._lock:
            if now != sent:
                return True
            change = concession(problem, sent, self._changes)
            if change is None:
                return False
            self._changes.append(change)
        _log.info("%s at %s: asked again, %s.", self.llm.model, self.llm.base_url, change.what)
        return True

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
                    response_format: ResponseFormat | None) -> Parameters:
        wanted: dict[str, Any] = {
            "temperature": self.llm.temperature,
            "seed": seed % 2**31,
            # OpenAI's reasoning models accept only the new name, most other servers only the old one.
            "max_completion_tokens" if "api.openai.com" in self.llm.base_url else "max_tokens": self.llm.max_tokens,
        }
        if response_format is not None:
            wanted["response_format"] = response_format
        parameters = {"model": self.llm.model, "messages": list(messages), **wanted}
        for change in self._changes:
            parameters = change.apply(parameters)
        return parameters

    def _reply(self, body: bytes) -> Reply | Problem:
        try:
            answer = completion.read(body)
        except ValueError:
            start = self.credential.redact(body[:200].decode("utf-8", "replace"))
            raise failures.unusable(self.llm, f"it is no chat completion but begins with {start!r}") from None
        if answer.error:
            return problems.in_answer(answer.error, self.credential)
        if answer.filtered:
            raise failures.answer_filtered(self.llm, answer.finish)
        if answer.refusal and not answer.text:
            raise failures.refused(self.llm, self.credential.redact(answer.refusal)[:300])
        return Reply(self.credential.redact(answer.text), self._usage(answer.usage), answer.finish == "length")

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


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _sum(a: Any, b: Any) -> Any:
    return None if a is None or b is None else a + b


def host_of(llm: LanguageModel) -> str:
    """The endpoint's host and port, for display."""
    return urlsplit(llm.base_url).netloc
