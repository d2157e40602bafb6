"""Random Art Prompts: many different prompts for the fillers of a grid."""

from __future__ import annotations

from comfy_api.latest import io

from ..atelier.prompts.art_request import CATEGORIES, MOST_PROMPTS, ArtRequest, category_in
from ..atelier.prompts.endpoints import LanguageModel
from . import sockets
from .host.progress import HostProgress
from .language_model import answer_cache, chat_client, on_error_input, seed_input, usage_text


class RandomArtPrompts(io.ComfyNode):
    """Writes many different prompts, for the pictures that fill a grid."""

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
                seed_input("Same settings and seed: the same prompts."),
                on_error_input(),
                sockets.Llm.Input("llm", optional=True, tooltip="From Language Model."),
            ],
            outputs=[io.String.Output(display_name="prompts", is_output_list=True,
                                      tooltip="A list: what follows runs once for each.")],
        )

    @classmethod
    def execute(cls, count: int, categories: str, seed: int, on_error: str,
                llm: LanguageModel | None = None) -> io.NodeOutput:
        """Ask the language model until there are enough, or draw from word lists."""
        from ..atelier.prompts.random_art import offline_prompts, written_prompts

        progress = HostProgress()
        names = dict.fromkeys(category_in(name, CATEGORIES) or name.strip() for name in categories.split(",")
                              if name.strip())
        request = ArtRequest(count, tuple(names), seed)
        if llm is None:
            result = offline_prompts(request)
        else:
            progress.say(f"asking {llm.model} …")
            result = written_prompts(request, chat_client(llm, progress), answer_cache(),
                                     fall_back=on_error == "offline")
        prompts = [prompt.text for prompt in result.prompts]
        text = "\n".join([*prompts, "", f"By {result.source}{usage_text(result.cost)}."])
        progress.say(f"{len(prompts)} prompts by {result.source}{usage_text(result.cost)}")
        return io.NodeOutput(prompts, ui={"text": (text,)})
