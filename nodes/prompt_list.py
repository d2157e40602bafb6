"""Prompt List: several prompts, one a line, each with a seed."""

from __future__ import annotations

from comfy_api.latest import io

from ..atelier.errors import AtelierError
from ..atelier.prompt_lines import prompt_lines, styled

SEED_RANGE = 2**63


class PromptList(io.ComfyNode):
    """Splits a text into prompts, each with a seed, and adds the style that they share."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierPromptList",
            display_name="Prompt List",
            category="Atelier/prompts",
            description="Several prompts at once, one a line. What follows runs once for each, with a seed of its own.",
            search_aliases=["prompts", "lines", "batch prompts", "text list", "multiple prompts", "prompt from file"],
            inputs=[
                io.String.Input("text", multiline=True, dynamic_prompts=True,
                                tooltip="One prompt a line. Empty lines and lines that begin with # are left out."),
                io.String.Input("before", default="", dynamic_prompts=True,
                                tooltip="Put before every line, such as 'a pencil sketch of'."),
                io.String.Input("after", default="", dynamic_prompts=True,
                                tooltip="Put after every line, such as ', soft light'."),
                io.Int.Input("seed", default=0, min=0, max=SEED_RANGE - 1,
                             control_after_generate=io.ControlAfterGenerate.fixed,
                             tooltip="Seed of the first prompt; each further one has the next."),
            ],
            outputs=[
                io.String.Output(display_name="prompts", is_output_list=True,
                                 tooltip="A list: what follows runs once for each."),
                io.Int.Output(display_name="seeds", is_output_list=True, tooltip="A list: a seed for each prompt."),
                io.String.Output(display_name="lines", is_output_list=True,
                                 tooltip="A list: the lines alone, to score what is shown and not how it is drawn."),
            ],
        )

    @classmethod
    def execute(cls, text: str, before: str, after: str, seed: int) -> io.NodeOutput:
        """Split the text into lines."""
        lines = prompt_lines(text)
        if not lines:
            raise AtelierError("text holds no prompt.", "Write one prompt a line.")
        seeds = [(seed + i) % SEED_RANGE for i in range(len(lines))]
        return io.NodeOutput([styled(line, before, after) for line in lines], seeds, lines)
