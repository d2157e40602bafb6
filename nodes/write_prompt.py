"""Write Prompt: positive prompt, negative prompt and title from an idea."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..atelier.prompts.endpoints import LanguageModel
from ..atelier.prompts.fields import CLIP_BUDGET, PromptFields, PromptStyle
from . import sockets
from .example_sets import NO_EXAMPLES, example_library
from .host.progress import HostProgress
from .language_model import answer_cache, chat_client, on_error_input, seed_input, usage_text

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..atelier.prompts.request import WrittenPrompt

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


class WritePrompt(io.ComfyNode):
    """Writes positive prompt, negative prompt and title from an idea, with one request to the language model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        fields = [io.String.Input(name, default="", optional=True, advanced=True, dynamic_prompts=True,
                                  tooltip=f"{_FIELD_HELP[name]} Kept word for word.") for name in PromptFields.names()]
        return io.Schema(
            node_id="AtelierWritePrompt",
            display_name="Write Prompt",
            category="Atelier/prompts",
            description="Turns an idea, or a picture, into a positive prompt, a negative prompt and a title. Without a "
                        "language model the offline writer does it.",
            search_aliases=["prompt enhancer", "chatgpt", "llm", "embellish", "prompt generator", "title"],
            is_output_node=True,
            inputs=[
                io.String.Input("idea", default="a cat wearing neon-glasses", multiline=True, dynamic_prompts=True,
                                tooltip="What the picture shows, in a few words."),
                io.Combo.Input("example_set", options=[NO_EXAMPLES, *example_library().names()], default=NO_EXAMPLES,
                               tooltip="Examples for a kind of model, from prompt_examples/ of the pack or "
                                       "user/atelier/examples."),
                io.String.Input("style", default="", dynamic_prompts=True,
                                tooltip="Words about the style, or nothing."),
                io.Combo.Input("form", options=[style.value for style in PromptStyle], default=PromptStyle.TAGS.value,
                               tooltip="Tags suit SD1.5 and SD2, sentences SDXL; fields writes each part of the list "
                                       "below by itself and joins them."),
                io.Int.Input("token_budget", default=CLIP_BUDGET, min=0, max=1000,
                             tooltip="Most tokens of each prompt; CLIP sees 75 at once. 0: no limit."),
                seed_input("Same idea, settings and seed: the same prompt, from the cache. Another seed asks again."),
                on_error_input(),
                sockets.Llm.Input("llm", optional=True, tooltip="From Language Model."),
                io.Clip.Input("clip", optional=True, tooltip="Counts tokens exactly; without it they are estimated."),
                *fields,
                io.Image.Input("picture", optional=True,
                               tooltip="A reference: the prompt is for a picture like its first one. Needs a language "
                                       "model that sees; the idea may then be empty, or say what shall differ."),
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
                llm: LanguageModel | None = None, clip: Any = None, picture: Any = None,
                **fields: str) -> io.NodeOutput:
        """Ask the language model, or write offline, and show the result."""
        from ..atelier.prompts import offline
        from ..atelier.prompts.request import PromptRequest
        from ..atelier.prompts.write import write
        from .host.clip_encoder import token_counter

        progress = HostProgress()
        examples = None if example_set == NO_EXAMPLES else example_library().get(example_set)
        request = PromptRequest(idea=idea, style=style, prompt_style=PromptStyle(form), fields=PromptFields(**fields),
                                budget=token_budget, examples=examples, seed=seed,
                                picture=_reference(picture) if llm is not None or not idea.strip() else None)
        counter = token_counter(clip) if clip is not None else None
        if llm is None:
            written = offline.write(request, counter)
        else:
            progress.say(f"asking {llm.model} …")
            written = write(request, chat_client(llm, progress), answer_cache(), counter,
                            fall_back=on_error == "offline")
        text = _report(written)
        progress.say(text)
        return io.NodeOutput(written.positive, written.negative, written.title, ui={"text": (text,)})


def _reference(images: Any) -> Image | None:
    """The first picture of an IMAGE, mode RGB."""
    from ..atelier.pictures.rgb import to_rgb
    from .host.images import from_image_tensor

    return None if images is None else to_rgb(from_image_tensor(images[:1])[0])


def _report(written: WrittenPrompt) -> str:
    cut = ", cut to the budget" if written.cut else ""
    return (f"{written.positive}\n\nNegative: {written.negative}\n\n{written.title}\n\n"
            f"{written.tokens} of {CLIP_BUDGET}{cut}. By {written.source}{usage_text(written.cost)}.")
