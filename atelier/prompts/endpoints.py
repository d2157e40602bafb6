"""Language models and their endpoints: address, model name and the *name* of the credential."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import AtelierError

CUSTOM = "custom"
"""Name of the preset whose address the user types."""

NO_CREDENTIAL = "none"
"""Credential name of endpoints that need no key."""

QUESTIONS = "/chat/completions"
"""What is appended to an endpoint's address to ask a question."""
_TOO_FAR = re.compile(r"(?:/chat)?/completions|(?<=/v1)/(?:models|embeddings|responses)")
_OLLAMA = re.compile(r"/api/(?:chat|generate|tags)")


@dataclass(frozen=True)
class Endpoint:
    """Address and usual credential of a service that speaks OpenAI's chat-completions protocol."""

    base_url: str
    credential: str = NO_CREDENTIAL


ENDPOINTS: dict[str, Endpoint] = {
    "OpenAI": Endpoint("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "Gemini": Endpoint("https://generativelanguage.googleapis.com/v1beta/openai", "GOOGLE_API_KEY"),
    "OpenRouter": Endpoint("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "Ollama": Endpoint("http://127.0.0.1:11434/v1"),
    "LM Studio": Endpoint("http://127.0.0.1:1234/v1"),
}


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A model behind an endpoint. Holds no key, so it may travel through graphs, logs and files.

    Raises:
        AtelierError: a value is out of range or the address is not a plain http(s) address.
    """

    base_url: str
    model: str
    credential: str = NO_CREDENTIAL
    """Name of the credential, resolved by `atelier.prompts.credentials` when a request is made."""
    timeout: float = 120.0
    """Seconds until a request is abandoned."""
    max_tokens: int = 4000
    """Maximum tokens of an answer, thinking included; limits the cost of a runaway answer."""
    temperature: float = 0.8
    price_in: float = 0.0
    """Price of a million input tokens, in any currency; 0 is unknown."""
    price_out: float = 0.0
    """Price of a million output tokens."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", plain_url(self.base_url))
        _check_end(self.base_url)
        object.__setattr__(self, "model", self.model.strip())
        if not self.model:
            raise AtelierError("No model is named for the language model.",
                               "Type the model's name as the service spells it, such as gpt-4o-mini or llama3.2.")
        if not 1 <= self.timeout <= 3600:
            raise AtelierError(f"timeout is {self.timeout} seconds.", "Choose between 1 and 3600.")
        if not 16 <= self.max_tokens <= 100_000:
            raise AtelierError(f"max_tokens is {self.max_tokens}.", "Choose between 16 and 100000.")
        if not 0 <= self.temperature <= 2:
            raise AtelierError(f"temperature is {self.temperature}.", "Choose between 0 and 2.")
        if self.price_in < 0 or self.price_out < 0:
            raise AtelierError(f"A price is negative: price_in {self.price_in}, price_out {self.price_out}.",
                               "Type the price of a million tokens, or 0 if it is unknown.")


def _check_end(base_url: str) -> None:
    """Refuse the address of one function of a service, which documentation often shows, in place of the service's."""
    for end, instead in ((_TOO_FAR, ""), (_OLLAMA, "/v1")):
        match = re.search(rf"(?:{end.pattern})$", base_url)
        if match is not None:
            raise AtelierError(f"The language model's address ends with {match[0]}, which leads to one function of the "
                               "service.", f"Type the service's own address: {base_url[:match.start()]}{instead}")


def plain_url(text: str) -> str:
    """An http(s) address in one spelling: lower-case scheme and host, no default port, no slash at the end.

    Ambiguous addresses are rejected: a user name before the host, `..`, escapes, a query.

    Raises:
        AtelierError: the address is invalid. The message shows its host at most, as the rest may contain a key.
    """
    text = text.strip()
    do = "Type an address such as https://api.openai.com/v1 or http://127.0.0.1:11434/v1."
    if not text:
        raise AtelierError("The language model has no address.", do)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise AtelierError("The language model's address cannot be read.", do) from None
    if parts.scheme.lower() not in ("http", "https") or not host:
        raise AtelierError("The language model's address is no http or https address.", do)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise AtelierError(f"The language model's address at {host} holds a user name, a query or a fragment.",
                           "Type only scheme, host and path; a key belongs into a credential.")
    segments = parts.path.split("/")
    if any(c in text for c in "\\%") or " " in text or not text.isprintable() or "." in segments or ".." in segments:
        raise AtelierError(f"The path of the language model's address at {host} holds escapes, spaces, "
                           "invisible characters or dots.", do)
    scheme = parts.scheme.lower()
    shown_host = f"[{host}]" if ":" in host else host
    shown_port = "" if port in (None, {"http": 80, "https": 443}[scheme]) else f":{port}"
    path = "/".join(segment for segment in segments if segment)
    return f"{scheme}://{shown_host}{shown_port}" + (f"/{path}" if path else "")
