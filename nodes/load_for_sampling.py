"""Load for Sampling: a handle to the host's MODEL, CLIP and VAE."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import sockets
from .host import weights


class LoadForSampling(io.ComfyNode):
    """Loads MODEL, CLIP and VAE of a handle."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierLoadForSampling",
            display_name="Load for Sampling",
            category="Atelier/model",
            description="Loads a model for core's samplers, whether it is a checkpoint or a diffusers folder.",
            search_aliases=["checkpoint loader", "diffusers loader"],
            inputs=[sockets.DiffusersModel.Input("model", tooltip="From Convert Checkpoint or Open Model.")],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="What denoises."),
                io.Clip.Output(display_name="CLIP", tooltip="What reads prompts."),
                io.Vae.Output(display_name="VAE", tooltip="What turns latents into pictures and back."),
            ],
        )

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        """Load the weights with the host's own loader."""
        return io.NodeOutput(*weights.load_model(sockets.on_disk(model)))
