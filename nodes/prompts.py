"""Nodes that write prompts, by a language model or offline, and the one that weights them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..atelier.errors import AtelierError
from ..atelier.prompts.art_request import CATEGORIES, MOST_PROMPTS, ArtRequest
from ..atelier.prompts.endpoints import CUSTOM, ENDPOINTS, LanguageModel
from ..atelier.prompts.examples import SHIPPED, ExampleLibrary
from ..atelier.prompts.fields import CLIP_BUDGET, PromptFields, PromptStyle
from . import host, sockets
from .numbers import arrows

if TYPE_CHECKING:
    from ..atelier.prompts.answer_cache import AnswerCache
    from ..atelier.prompts.client import ChatClient, Usage
    from ..atelier.prompts.credentials import CredentialStore
    from ..atelier.prompts.request import WrittenPrompt

BY_ENDPOINT = "by endpoint"
NO_EXAMPLES = "none"
_LLM = LanguageModel(base_url=ENDPOINTS["OpenAI"].base_url, model="gpt-4o-mini")
_FIELD_HELP = {
    "medium": "Such as photograph, oil painting or pencil sketch.",
    "subject": "What the picture shows, if more than the idea says.",
    "body": "Pose, clothes, build.",
    "hair": "Colour, length, style.",
    "face": "Expression, age, features.",
    "lighting": "Such as soft morning light or neon rim light.",
    "resolution": "Words for sharpness and detail.",
    "colours": "Palette or single colours.",
}


def example_library() -> ExampleLibrary:
    """The sets of the user, then those of the pack."""
    return ExampleLibrary((host.work_folder("examples"), SHIPPED))


def _credentials() -> CredentialStore:
    from ..atelier.prompts.credentials import CredentialStore

    return CredentialStore(host.work_folder("credentials.toml"))


def _client(llm: LanguageModel, progress: host.HostProgress) -> ChatClient:
    from ..atelier.prompts.client import ChatClient

    return ChatClient(llm=llm, credentials=_credentials(), progress=progress)


def _cache() -> AnswerCache:
    from ..atelier.prompts.answer_cache import AnswerCache

    return AnswerCache(host.work_folder("answers"))


def _on_error() -> io.Input:
    return io.Combo.Input("on_error", options=["raise", "offline"], default="raise",
                          tooltip="If the language model gives nothing usable: stop the graph, or let the offline "
                                  "writer take over, which the node then says.")


def _seed(tooltip: str) -> io.Input:
    # Kept after a run: every new seed is a new, paid question.
    return io.Int.Input("seed", default=0, min=0, max=2**63 - 1,
                        control_after_generate=io.ControlAfterGenerate.fixed, tooltip=tooltip)


class LanguageModelNode(io.ComfyNode):
    """Whom to ask."""

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
                io.Combo.Input("credential", options=[BY_ENDPOINT, *_credentials().names()], default=BY_ENDPOINT,
                               tooltip="Name of the environment variable, or of the entry in user/atelier/"
                                       "credentials.toml, that holds the key."),
                io.String.Input("base_url", default="", tooltip="The address, for the endpoint custom."),
                io.Float.Input("temperature", default=_LLM.temperature, min=0, max=2, step=0.05, advanced=True,
                               tooltip="How freely it chooses its words. Left out where the model takes none."),
                io.Float.Input("timeout", default=_LLM.timeout, min=1, max=3600, step=1, advanced=True,
                               tooltip="Seconds until an unanswered question is given up."),
                io.Int.Input("max_tokens", default=_LLM.max_tokens, min=16, max=100_000, advanced=True,
                             tooltip="Most tokens of an answer, thinking included."),
                io.Float.Input("price_in", default=_LLM.price_in, min=0, max=10_000, step=0.0001, advanced=True,
                               extra_dict=arrows(0.01),
                               tooltip="Price of a million tokens sent, to show what a prompt cost. 0: unknown."),
                io.Float.Input("price_out", default=_LLM.price_out, min=0, max=10_000, step=0.0001, advanced=True,
                               extra_dict=arrows(0.01),
                               tooltip="Price of a million tokens received."),
            ],
            outputs=[sockets.Llm.Output(display_name="llm", tooltip="For Write Prompt or Random Art Prompts.")],
        )

    @classmethod
    def validate_inputs(cls, credential: str) -> bool:
        """Let names through that this machine does not list: the run says what is missing."""
        return True

    @classmethod
    def execute(cls, endpoint: str, credential: str, base_url: str, **settings: Any) -> io.NodeOutput:
        """No request is made and no key is read here."""
        if endpoint != CUSTOM and base_url.strip():
            raise AtelierError(f"base_url is filled in, but the endpoint is {endpoint}.",
                               f"Choose the endpoint {CUSTOM}, or empty base_url.")
        known = ENDPOINTS.get(endpoint)
        if credential == BY_ENDPOINT:
            credential = known.credential if known else LanguageModel.credential
        return io.NodeOutput(LanguageModel(base_url=known.base_url if known else base_url, credential=credential,
                                           **settings))


class WritePrompt(io.ComfyNode):
    """Positive prompt, negative prompt and title from an idea, in one question."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        fields = [io.String.Input(name, default="", optional=True, advanced=True,
                                  tooltip=f"{_FIELD_HELP[name]} Kept word for word.") for name in PromptFields.names()]
        return io.Schema(
            node_id="AtelierWritePrompt",
            display_name="Write Prompt",
            category="Atelier/prompts",
            description="Turns an idea into a positive prompt, a negative prompt and a title. Without a language model "
                        "the offline writer does it.",
            search_aliases=["prompt enhancer", "chatgpt", "llm", "embellish", "prompt generator", "title"],
            is_output_node=True,
            inputs=[
                io.String.Input("idea", default="a cat wearing neon-glasses", multiline=True,
                                tooltip="What the picture shows, in a few words."),
                io.Combo.Input("example_set", options=[NO_EXAMPLES, *example_library().names()], default=NO_EXAMPLES,
                               tooltip="Examples for a kind of model, from prompt_examples/ of the pack or "
                                       "user/atelier/examples."),
                io.String.Input("style", default="", tooltip="Words about the style, or nothing."),
                io.Combo.Input("form", options=[form.value for form in PromptStyle], default=PromptStyle.TAGS.value,
                               tooltip="Tags suit SD1.5 and SD2, sentences SDXL; fields writes each part of the list "
                                       "below by itself and joins them."),
                io.Int.Input("token_budget", default=CLIP_BUDGET, min=0, max=1000,
                             tooltip="Most tokens of each prompt; CLIP sees 75 at once. 0: no limit."),
                _seed("Same idea, settings and seed: the same prompt, from the cache. Another seed asks again."),
                _on_error(),
                sockets.Llm.Input("llm", optional=True, tooltip="From Language Model."),
                io.Clip.Input("clip", optional=True, tooltip="Counts tokens exactly; without it they are estimated."),
                *fields,
            ],
            outputs=[
                io.String.Output(display_name="positive", tooltip="What shall be seen."),
                io.String.Output(display_name="negative", tooltip="What shall not be seen."),
                io.String.Output(display_name="title", tooltip="A few words, for a file name."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, example_set: str | None = None, **_: Any) -> str:
        """Change when the example set's file does."""
        return example_library().fingerprint(example_set or "")

    @classmethod
    def execute(cls, idea: str, example_set: str, style: str, form: str, token_budget: int, seed: int, on_error: str,
                llm: LanguageModel | None = None, clip: Any = None, **fields: str) -> io.NodeOutput:
        """Ask, or write offline, and show what came of it."""
        from ..atelier.prompts import offline
        from ..atelier.prompts.request import PromptRequest
        from ..atelier.prompts.write import write
        from .clip_encoder import token_counter

        progress = host.HostProgress()
        examples = None if example_set == NO_EXAMPLES else example_library().get(example_set)
        request = PromptRequest(idea=idea, style=style, prompt_style=PromptStyle(form), fields=PromptFields(**fields),
                                budget=token_budget, examples=examples, seed=seed)
        counter = token_counter(clip) if clip is not None else None
        if llm is None:
            written = offline.write(request, counter)
        else:
            progress.say(f"asking {llm.model} …")
            written = write(request, _client(llm, progress), _cache(), counter, fall_back=on_error == "offline")
        text = _told(written)
        progress.say(text)
        return io.NodeOutput(written.positive, written.negative, written.title, ui={"text": (text,)})


class RandomArtPrompts(io.ComfyNode):
    """Many different prompts, for the pictures that fill a grid."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierRandomArtPrompts",
            display_name="Random Art Prompts",
            category="Atelier/prompts",
            description="As many different prompts as asked for, no subject twice. Without a language model they come "
                        "from word lists.",
            search_aliases=["random prompt", "filler", "prompt list", "wildcard"],
            is_output_node=True,
            inputs=[
                io.Int.Input("count", default=12, min=1, max=MOST_PROMPTS,
                             tooltip="How many. A grid of 4 × 4 blocks with one unique picture each needs 48."),
                io.String.Input("categories", default=", ".join(CATEGORIES),
                                tooltip="Some of animal, landscape, object, cityscape, nature, space, abstract, with "
                                        "commas. Each gets the same share."),
                _seed("Same settings and seed: the same prompts."),
                _on_error(),
                sockets.Llm.Input("llm", optional=True, tooltip="From Language Model."),
            ],
            outputs=[io.String.Output(display_name="prompts", is_output_list=True,
                                      tooltip="A list: what follows runs once for each.")],
        )

    @classmethod
    def execute(cls, count: int, categories: str, seed: int, on_error: str,
                llm: LanguageModel | None = None) -> io.NodeOutput:
        """Ask until there are enough, or draw from the lists."""
        from ..atelier.prompts.random_art import offline_prompts, written_prompts

        progress = host.HostProgress()
        names = dict.fromkeys(name.strip().lower() for name in categories.split(",") if name.strip())
        request = ArtRequest(count, tuple(names), seed)
        if llm is None:
            found = offline_prompts(request)
        else:
            progress.say(f"asking {llm.model} …")
            found = written_prompts(request, _client(llm, progress), _cache(), fall_back=on_error == "offline")
        prompts = [prompt.text for prompt in found.prompts]
        text = "\n".join([*prompts, "", f"By {found.source}{_cost(found.cost)}."])
        progress.say(f"{len(prompts)} prompts by {found.source}{_cost(found.cost)}")
        return io.NodeOutput(prompts, ui={"text": (text,)})


class WeightedPrompt(io.ComfyNode):
    """A prompt in compel's syntax as conditioning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierWeightedPrompt",
            display_name="Weighted Prompt",
            category="Atelier/prompts",
            description="Encodes a prompt in compel's syntax: cat++, dog--, (two words)1.3, "
                        "(\"one\", \"other\").blend(1, 0.5), (\"first\", \"second\").and().",
            search_aliases=["compel", "prompt weights", "blend", "attention", "clip text encode"],
            inputs=[
                io.String.Input("text", default="", multiline=True, dynamic_prompts=True,
                                tooltip="Each + is 1.1, each - is 0.9. Weights below 1 hide words from attention, so "
                                        "that 0 removes them."),
                io.Clip.Input("clip", tooltip="The text encoder of an SD1, SD2 or SDXL model."),
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning", tooltip="For a sampler.")],
        )

    @classmethod
    def execute(cls, text: str, clip: Any) -> io.NodeOutput:
        """Parse and encode."""
        from ..atelier.prompts.weights.embed import weighted
        from .clip_encoder import ClipEncoder

        encoder = ClipEncoder(clip)
        encoded = weighted(text, encoder)
        return io.NodeOutput([[encoded.embeds, {"pooled_output": encoded.pooled, **encoder.extra}]])


def _told(written: WrittenPrompt) -> str:
    cut = ", cut to the budget" if written.cut else ""
    return (f"{written.positive}\n\nNegative: {written.negative}\n\n{written.title}\n\n"
            f"{written.tokens} of {CLIP_BUDGET}{cut}. By {written.source}{_cost(written.cost)}.")


def _cost(usage: Usage) -> str:
    if usage.tokens_in is None or usage.tokens_out is None or not usage.tokens_in + usage.tokens_out:
        return ""
    money = f", cost {usage.cost:.6f}".rstrip("0").rstrip(".") if usage.cost else ""
    return f"; {usage.tokens_in} tokens sent, {usage.tokens_out} received{money}"


NODES: list[type[io.ComfyNode]] = [LanguageModelNode, WritePrompt, RandomArtPrompts, WeightedPrompt]
