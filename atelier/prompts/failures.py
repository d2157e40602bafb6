"""Explain to the user what went wrong at a language model's endpoint, and what to do about it."""

from __future__ import annotations

import re
from urllib.parse import urljoin, urlsplit

from ..errors import AtelierError
from .endpoints import NO_CREDENTIAL, QUESTIONS, LanguageModel, plain_url
from .problem import RETRIED, Problem


class NoAnswer(AtelierError):
    """The model was reached, but gave nothing usable to this question; it may well answer another."""


_OTHER_WORDS = "Word the idea differently, or choose another model."


def explain(problem: Problem, llm: LanguageModel) -> AtelierError:
    """The error for the user, with what to do about it."""
    what = f"{llm.model} at {llm.base_url} answered {problem.status}: {problem.shown}"
    if problem.filtered:
        return NoAnswer(f"A content filter stopped the question to {llm.model} at {llm.base_url}: {problem.shown}",
                        _OTHER_WORDS)
    if problem.blind and problem.status not in (401, 403):
        return AtelierError(what, "This model takes no pictures: choose one that sees, such as gpt-4o-mini, "
                                  "gemini-2.5-flash, or qwen2.5vl with Ollama.")
    if problem.out_of_quota:
        return AtelierError(what, "The account's quota is used up: top it up, or choose another model or endpoint.")
    if problem.status in (401, 403):
        if llm.credential == NO_CREDENTIAL:
            return AtelierError(what, "The endpoint wants a key: choose a credential.")
        return AtelierError(what, f"Check the key that {llm.credential} holds, and that it may use this model.")
    if problem.status in (404, 405, 501) and not re.search(r"\bmodel\b", problem.text):
        return AtelierError(what, _other_address(llm))
    if problem.status == 404:
        return AtelierError(what, "Check the model's name (with Ollama: `ollama pull` it first) and the address.")
    if problem.status in (301, 302, 303, 307, 308):
        return AtelierError(what, f"Type the address the server redirects to{_redirected(problem, llm)}; redirects are "
                                  f"not followed with a key.")
    if problem.loading:
        return AtelierError(what, f"The model was still loading after {llm.timeout:g} seconds: load it first, or raise "
                                  "the timeout.")
    if problem.status == 429 and problem.retry_after is not None:
        return AtelierError(what, f"The server asks to wait {problem.retry_after:.0f} seconds: try again then.")
    if problem.too_long:
        return AtelierError(what, "Load the model with a longer context (Ollama: num_ctx; LM Studio: context length), "
                                  "lower max_tokens, or choose an example set with fewer examples.")
    if problem.status in RETRIED or problem.status >= 500:
        return AtelierError(what, "It was asked several times: try again later, or choose another model.")
    return AtelierError(what, "Change the model or its settings.")


def answer_filtered(llm: LanguageModel, finish: str) -> AtelierError:
    """The error for an answer that a content filter ended."""
    return NoAnswer(f"A content filter stopped the answer of {llm.model} at {llm.base_url} (finish_reason {finish}).",
                    _OTHER_WORDS)


def refused(llm: LanguageModel, words: str) -> AtelierError:
    """The error for a model that refuses to answer, in its own words."""
    return NoAnswer(f"{llm.model} refused: {words}", "Word the idea differently or choose another model.")


def _other_address(llm: LanguageModel) -> str:
    """What to type if nothing answers at the address."""
    path = urlsplit(llm.base_url).path
    if re.search(r"/v\d|openai", path):
        return ("Check the model's name (with Ollama: `ollama pull` it first) and the address: most services answer at "
                "one that ends with /v1.")
    return f"Type {llm.base_url.removesuffix('/api')}/v1 as the address; if it answers there, check the model's name."


def _redirected(problem: Problem, llm: LanguageModel) -> str:
    """The base address that a redirect names, in brackets; empty if it names none that could be typed."""
    target = urljoin(llm.base_url + QUESTIONS, problem.location)
    if not problem.location or not target.endswith(QUESTIONS):
        return ""
    try:
        return f" ({plain_url(target.removesuffix(QUESTIONS))})"
    except AtelierError:
        return ""


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
    return NoAnswer(f"The answer of {llm.model} at {llm.base_url} cannot be used: {why}.",
                    "Try another seed or model, or check that the address speaks OpenAI's chat completions.")
