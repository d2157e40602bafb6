"""Add Prompt Example: add a prompt to one's own example set."""

from __future__ import annotations

from comfy_api.latest import io

from ..atelier.errors import AtelierError
from ..atelier.files import file_name
from ..atelier.prompts.fields import PromptStyle
from . import sockets
from .example_sets import NO_EXAMPLES, example_library
from .validation import check


class AddPromptExample(io.ComfyNode):
    """Adds a prompt that worked to an example set of one's own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierAddPromptExample",
            display_name="Add Prompt Example",
            category="Atelier/prompts",
            description="Puts a prompt that worked, such as one from Read Prompt, into an example set for Write "
                        "Prompt.",
            search_aliases=["example set", "few-shot", "collect prompts", "prompt library", "save prompt"],
            is_output_node=True,
            inputs=[
                io.String.Input("positive", default="", multiline=True, tooltip="The prompt."),
                io.String.Input("name", default="my examples",
                                tooltip="The example set. A new one is begun in user/atelier/examples; one that comes "
                                        "with the pack is copied there first."),
                io.Combo.Input("form", options=[PromptStyle.TAGS.value, PromptStyle.SENTENCES.value],
                               default=PromptStyle.TAGS.value,
                               tooltip="How the prompt is worded. A set holds one of the two."),
                io.String.Input("negative", default="", optional=True, multiline=True,
                                tooltip="The negative prompt. Nothing: the set's usual one."),
                io.String.Input("idea", default="", optional=True,
                                tooltip="What a person would have asked for. Nothing: the prompt's first words."),
                io.String.Input("title", default="", optional=True, tooltip="The picture's title. Nothing: the idea."),
            ],
            outputs=[sockets.Choice.Output(display_name="example_set", tooltip="The set's name, for Write Prompt.")],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        """Report before the run that a set cannot have this name."""
        return check(_check_name, name)

    @classmethod
    def execute(cls, positive: str, name: str, form: str, negative: str = "", idea: str = "",
                title: str = "") -> io.NodeOutput:
        """Add the prompt, unless the set holds it already."""
        from ..atelier.prompts.own_examples import add_example, example_of

        _check_name(name)
        added = add_example(example_library(), name, example_of(positive, negative, idea, title), PromptStyle(form))
        count = len(added.examples)
        text = f"{added.name}: {count} example{'s' * (count > 1)}, {form}"
        return io.NodeOutput(added.name, ui={"text": (text,)})


def _check_name(name: str) -> None:
    if name == NO_EXAMPLES:
        raise AtelierError(f"{name!r} cannot be the name of an example set: it stands for no examples.",
                           "Choose another name.")
    file_name(name)
