"""Loaded Model: what core's loaders give, as a model to train."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import sockets
from .host.progress import HostProgress
from .widgets import arrow_step


class LoadedModelNode(io.ComfyNode):
    """Takes MODEL, CLIP and VAE of core's loaders as a model for Train LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierLoadedModel",
            display_name="Loaded Model",
            category="Atelier/model",
            description="Any picture model that ComfyUI has loaded, for Train LoRA: Flux, Qwen-Image, Z-Image, Anima, "
                        "Krea 2, Chroma, SD 3.5 and Stable Diffusion. It is trained as its file stores it, fp8 too.",
            search_aliases=["flux", "qwen image", "z-image", "anima", "krea", "chroma", "sd3", "train any model"],
            inputs=[
                io.Model.Input("model", tooltip="From Load Diffusion Model or Load Checkpoint, unchanged. The base "
                                                "version of a model learns better than its distilled one."),
                io.Clip.Input("clip", tooltip="The model's text encoder, from its loader."),
                io.Vae.Input("vae", tooltip="The model's VAE, from its loader."),
                io.Float.Input("guidance", default=-1.0, min=-1.0, max=100.0, step=0.01, advanced=True, optional=True,
                               extra_dict=arrow_step(0.5),
                               tooltip="For distilled models such as FLUX.1 dev: the guidance that the model is told "
                                       "while it learns. -1: as ComfyUI tells it by default. Others ignore it."),
            ],
            outputs=[sockets.DiffusersModel.Output(display_name="model", tooltip="For Train LoRA.")],
        )

    @classmethod
    def execute(cls, model: Any, clip: Any, vae: Any, guidance: float = -1.0) -> io.NodeOutput:
        """Check that it can be trained, and read the fingerprints of its files."""
        from .host.loaded.model import open_loaded

        told = None if guidance < 0 else guidance
        return io.NodeOutput(open_loaded(model, clip, vae, guidance=told, progress=HostProgress()))
