"""Weighted Prompt: a prompt in compel's syntax as conditioning."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io


class WeightedPromptNode(io.ComfyNode):
    """Encodes a prompt in compel's syntax as conditioning."""

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
        from .host.clip_encoder import ClipEncoder

        encoder = ClipEncoder(clip)
        encoded = weighted(text, encoder)
        return io.NodeOutput([[encoded.embeds, {"pooled_output": encoded.pooled, **encoder.extra}]])
