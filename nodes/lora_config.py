"""The node for the shape of the adapter."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..atelier.train.request.lora import KINDS, TARGETS
from . import sockets
from .preset_widgets import changed, choice, count, number, switch


class LoraConfigNode(io.ComfyNode):
    """Rank, alpha, dropout, targets and kind of the adapter, where they differ from the preset's."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierLoraConfig",
            display_name="LoRA Config",
            category="Atelier/training",
            description="The shape of the LoRA to train, where it differs from the preset of Train LoRA.",
            search_aliases=["rank", "alpha", "dora", "network dim", "lokr", "loha", "oft", "lycoris"],
            inputs=[
                count("rank", "Inner dimension of each adapter. More learns finer detail and makes a larger file.",
                      high=1024),
                number("alpha", "The change is scaled by alpha / rank. Equal to rank is a safe choice.", step=0.01,
                       by=0.5, high=4096),
                number("dropout", "Share of inputs left out at random in training, against overfitting.", step=0.001,
                       by=0.05, high=0.95),
                choice("targets", tuple(TARGETS),
                       "Layers to adapt: attention, only the attention to the text, attention with feed-forward, these "
                       "with convolutions, or every linear layer."),
                choice("kind", KINDS,
                       "DoRA also learns the length of each weight: often closer to full fine-tuning, slower. LoHa and "
                       "LoKr change more directions of a layer with as many numbers; LoKr makes the smallest files. "
                       "OFT only turns a layer's channels: rank is how many together, and alpha does not count."),
                switch("rslora", "Scale by alpha / √rank, which keeps high ranks useful.", advanced=True),
                switch("train_text_encoder", "Also adapt the text encoder. Helps a new word along, overfits sooner.",
                       advanced=True),
            ],
            outputs=[sockets.LoraConfig.Output(display_name="config", tooltip="For Train LoRA.")],
        )

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        """Hand on what differs from the preset; the request checks it when Train LoRA builds it."""
        return io.NodeOutput(changed(values))
