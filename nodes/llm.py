"""Language Model: which language model to ask, and how."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..atelier.errors import AtelierError
from ..atelier.prompts.endpoints import CUSTOM, ENDPOINTS, LanguageModel
from . import sockets
from .host.allowed import check_address
from .language_model import credential_store
from .validation import check
from .widgets import arrow_step

_BY_ENDPOINT = "by endpoint"

_LLM = LanguageModel(base_url=ENDPOINTS["OpenAI"].base_url, model="gpt-4o-mini")


class LanguageModelNode(io.ComfyNode):
    """Describes a language model and the endpoint that serves it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierLLM",
            display_name="Language Model",
            category="Atelier/prompts",
            description="A language model behind any service that speaks OpenAI's chat completions. It holds the name "
                        "of a key, never the key.",
            search_aliases=["llm", "chatgpt", "openai", "gemini", "ollama", "lm studio", "openrouter", "api key"],
            inputs=[
                io.Combo.Input("endpoint", options=[*ENDPOINTS, CUSTOM],
                               tooltip="The service. Ollama and LM Studio run on this machine and need no key."),
                io.String.Input("model", default=_LLM.model,
                                tooltip="The model's name as the service spells it, such as gpt-4o-mini, "
                                        "gemini-2.5-flash or llama3.2."),
                io.Combo.Input("credential", options=[_BY_ENDPOINT, *credential_store().names()], default=_BY_ENDPOINT,
                               tooltip="Name of the environment variable, or of the entry in user/atelier/"
                                       "credentials.toml, that holds the key."),
                io.String.Input("base_url", default="",
                                tooltip="The address, for the endpoint custom: on this machine, or one that "
                                        "user/atelier/allowed.toml lists."),
                io.Float.Input("temperature", default=_LLM.temperature, min=0, max=2, step=0.05, advanced=True,
                               tooltip="How freely it chooses its words. Left out where the model takes none."),
                io.Float.Input("timeout", default=_LLM.timeout, min=1, max=3600, step=1, advanced=True,
                               tooltip="Seconds until an unanswered question is given up."),
                io.Int.Input("max_tokens", default=_LLM.max_tokens, min=16, max=100_000, advanced=True,
                             tooltip="Most tokens of an answer, thinking included."),
                io.Float.Input("price_in", default=_LLM.price_in, min=0, max=10_000, step=0.0001, advanced=True,
                               extra_dict=arrow_step(0.01),
                               tooltip="Price of a million tokens sent, to show what a prompt cost. 0: unknown."),
                io.Float.Input("price_out", default=_LLM.price_out, min=0, max=10_000, step=0.0001, advanced=True,
                               extra_dict=arrow_step(0.01),
                               tooltip="Price of a million tokens received."),
            ],
            outputs=[sockets.Llm.Output(display_name="language model",
                                         tooltip="For Write Prompt or Random Art Prompts.")],
        )

    @classmethod
    def validate_inputs(cls, credential: str, base_url: str | None = None) -> bool | str:
        """Report before the run that no request may be sent to the address. A credential that this machine does not
        list is accepted: the run reports a missing key."""
        return check(check_address, base_url or None)

    @classmethod
    def execute(cls, endpoint: str, credential: str, base_url: str, **settings: Any) -> io.NodeOutput:
        """Fill in the endpoint; no request is made and no key is read here."""
        if endpoint != CUSTOM and base_url.strip():
            raise AtelierError(f"base_url is filled in, but the endpoint is {endpoint}.",
                               f"Choose the endpoint {CUSTOM}, or empty base_url.")
        preset = ENDPOINTS.get(endpoint)
        if credential == _BY_ENDPOINT:
            credential = preset.credential if preset else LanguageModel.credential
        return io.NodeOutput(LanguageModel(base_url=preset.base_url if preset else base_url, credential=credential,
                                           **settings))
