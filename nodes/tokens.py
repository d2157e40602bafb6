"""Tokens: how a text encoder tokenizes a prompt."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .clip_tokens import token_tables
from .host.images import to_image_tensor


class TokensNode(io.ComfyNode):
    """Shows the tokens of a text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierTokens",
            display_name="Tokens",
            category="Atelier/prompts",
            description="Shows how the text encoder cuts a prompt into tokens: how many, with which weights, and what "
                        "lies beyond the 75 that CLIP reads at once.",
            search_aliases=["tokenizer", "token count", "75", "77", "clip", "prompt length"],
            is_output_node=True,
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder of an SD1, SD2 or SDXL model."),
                io.String.Input("text", multiline=True, default="a cat wearing (neon-glasses:1.2)",
                                tooltip="A prompt in ComfyUI's syntax: (words:1.2) gives a weight."),
            ],
            outputs=[
                io.String.Output(display_name="table", tooltip="One line a token: chunk, number, weight, text."),
                io.Int.Output(display_name="count", tooltip="How many tokens the text has."),
                io.String.Output(display_name="beyond", tooltip="What is not among the first 75; empty if all is."),
                io.Image.Output(display_name="picture",
                                tooltip="The tokens as boxes, weights in colour, those beyond 75 struck out."),
            ],
        )

    @classmethod
    def execute(cls, clip: Any, text: str) -> io.NodeOutput:
        """Tokenize and draw; nothing is encoded."""
        from ..atelier.explain.token_picture import draw_tokens

        tables = token_tables(clip, text)
        picture = to_image_tensor([draw_tokens(tables[0])])
        text_table = "\n\n".join(table.table() for table in tables)
        shown = ui.PreviewImage(picture, cls=cls).as_dict()
        return io.NodeOutput(text_table, len(tables[0].tokens), tables[0].beyond_text, picture,
                             ui={**shown, "text": (text_table,)})
