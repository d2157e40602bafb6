"""Apply LoRA: patch MODEL and CLIP with a LoRA that is in memory."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import sockets
from .host import weights


class ApplyLora(io.ComfyNode):
    """Applies a LoRA that is in memory, such as the one just trained, to MODEL and CLIP."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierApplyLora",
            display_name="Apply LoRA",
            category="Atelier/lora",
            description="Adds a LoRA from another node to a model and its text encoder, with no file in between.",
            search_aliases=["lora", "load lora", "lora model"],
            inputs=[
                io.Model.Input("model", tooltip="The model to change. The one that comes in stays as it is."),
                io.Clip.Input("clip", tooltip="Its text encoder. Nothing happens to it if the LoRA did not train it."),
                sockets.LoraModel.Input("lora", tooltip="A LoRA from Train LoRA, Convert LoRA or Load LoRA Model."),
                io.Float.Input("strength_model", default=1.0, min=-10.0, max=10.0, step=0.05,
                               tooltip="How strongly the model is changed: 0 not at all, 1 as trained."),
                io.Float.Input("strength_clip", default=1.0, min=-10.0, max=10.0, step=0.05,
                               tooltip="How strongly the text encoder is changed."),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The model with the LoRA."),
                io.Clip.Output(display_name="CLIP", tooltip="The text encoder with the LoRA."),
            ],
        )

    @classmethod
    def execute(cls, model: Any, clip: Any, lora: Any, strength_model: float, strength_clip: float) -> io.NodeOutput:
        """Add the patches to clones of both."""
        return io.NodeOutput(*weights.apply_lora(model, clip, lora, strength_model, strength_clip))
