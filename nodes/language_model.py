"""Shared by the nodes that ask a language model: credentials, client, answer cache, widgets, and a text for usage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from .host import folders
from .host.progress import HostProgress

if TYPE_CHECKING:
    from ..atelier.prompts.answer_cache import AnswerCache
    from ..atelier.prompts.client import ChatClient, Usage
    from ..atelier.prompts.credentials import CredentialStore
    from ..atelier.prompts.endpoints import LanguageModel


def credential_store() -> CredentialStore:
    """The keys of environment and `user/atelier/credentials.toml`, by name."""
    from ..atelier.prompts.credentials import CredentialStore

    return CredentialStore(folders.work_folder("credentials.toml"))


def chat_client(llm: LanguageModel, progress: HostProgress) -> ChatClient:
    """A client for the language model; waiting for it can be cancelled through `progress`.

    Raises:
        AtelierError: a graph may not send requests to its address.
    """
    from ..atelier.prompts.client import ChatClient
    from .host.allowed import check_address

    check_address(llm.base_url)

    return ChatClient(llm=llm, credentials=credential_store(), progress=progress)


def answer_cache() -> AnswerCache:
    """Answers of earlier runs."""
    from ..atelier.prompts.answer_cache import AnswerCache

    return AnswerCache(folders.work_folder("answers"))


def on_error_input() -> io.Input:
    """What to do if the language model fails."""
    return io.Combo.Input("on_error", options=["raise", "offline"], default="raise",
                          tooltip="If the language model gives nothing usable: stop the graph, or let the offline "
                                  "writer take over, which the node then says.")


def seed_input(tooltip: str) -> io.Input:
    """A seed that stays fixed after a run: with every new seed the language model is asked, and paid, again."""
    return io.Int.Input("seed", default=0, min=0, max=2**63 - 1,
                        control_after_generate=io.ControlAfterGenerate.fixed, tooltip=tooltip)


def usage_text(usage: Usage) -> str:
    """Tokens and cost, to append to a sentence; empty if no tokens were used."""
    if usage.tokens_in is None or usage.tokens_out is None or not usage.tokens_in + usage.tokens_out:
        return ""
    money = f", cost {usage.cost:.6f}".rstrip("0").rstrip(".") if usage.cost else ""
    return f"; {usage.tokens_in} tokens sent, {usage.tokens_out} received{money}"
